package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// model is what a log must hold: the records after its last checkpoint.
type model struct {
	disk *memdisk.FS
	o    Options
	l    *Log
	from Pos
	kept []uint64 // segments before from that a checkpoint kept
	all  []string
	ends []Pos // of the batch that holds each
	n    int
}

func (m *model) start(t *rapid.T, fs *memdisk.FS) {
	m.disk, m.o.FS = fs, fs
	named := append(slices.Clone(m.kept), m.from.Segment)
	tail, err := Verify(m.o, m.from, named, func(d *disk.Damage) { t.Errorf("verify: %v", d) })
	if err != nil {
		t.Fatal(err)
	}
	l, r, err := restart(m.o, m.from, named)
	if err != nil {
		t.Fatal(err)
	}
	if want := m.end(); tail.End != r.tail.End || r.tail.End.Seq < want.Seq || r.tail.Torn != "" {
		t.Fatalf("starts at %+v torn %q, verify ends at %+v; want it after batch %d", r.tail.End, r.tail.Torn, tail.End, want.Seq)
	}
	if !slices.Equal(r.got, m.all) {
		t.Fatalf("recovered %q, want %q", r.got, m.all)
	}
	m.l = l
}

func (m *model) end() Pos {
	if len(m.ends) == 0 {
		return m.from
	}
	return m.ends[len(m.ends)-1]
}

func (m *model) append(t *rapid.T) {
	var b Batch
	var bodies []string
	for range rapid.IntRange(1, 4).Draw(t, "records") {
		m.n++
		body := fmt.Sprint(m.n) + strings.Repeat("x", rapid.SampledFrom([]int{0, 7, 60, 500, 2000}).Draw(t, "size"))
		typ := rapid.Uint8Range(1, 254).Draw(t, "type")
		b.AddBytes(typ, []byte(body))
		bodies = append(bodies, fmt.Sprintf("%d:%s", typ, body))
	}
	room, free := m.l.Room(true), m.l.Room(false)
	if free > room || room < 0 || free < 0 {
		t.Fatalf("room for %d bytes, %d of them without what is held back", room, free)
	}
	if !m.l.NeedsPrepare() && free == 0 {
		t.Fatal("with a segment ready there is no room")
	}
	calls := m.disk.Len()
	end, err := m.l.Append(&b)
	switch {
	case b.Len() > room:
		if !errors.Is(err, ErrNoRoom) || m.disk.Len() != calls {
			t.Fatalf("%d bytes where there is room for %d: %v, %v", b.Len(), room, err, m.disk.Journal()[calls:])
		}
		return
	case err != nil:
		t.Fatalf("%d bytes where there is room for %d: %v", b.Len(), room, err)
	case end.Seq <= m.end().Seq || end.Offset > MaxSegment:
		t.Fatalf("ends at %+v, the batch before at %+v", end, m.end())
	}
	m.all = append(m.all, bodies...)
	for range bodies {
		m.ends = append(m.ends, end)
	}
}

func (m *model) checkpoint(t *rapid.T) {
	if len(m.ends) == 0 {
		return
	}
	m.from = m.ends[rapid.IntRange(0, len(m.ends)-1).Draw(t, "from")]
	k := 0
	for k < len(m.ends) && m.ends[k].Seq <= m.from.Seq {
		k++
	}
	m.all, m.ends = m.all[k:], m.ends[k:]
	odd := rapid.Bool().Draw(t, "keep odd ones")
	keep := func(n uint64) bool { return odd && n%2 == 1 }
	m.kept = nil
	for _, n := range m.l.Segments() {
		if n < m.from.Segment && keep(n) {
			m.kept = append(m.kept, n)
		}
	}
	if rapid.Bool().Draw(t, "crash before Free") {
		return
	}
	if err := m.l.Free(m.from.Segment, keep); err != nil {
		t.Fatal(err)
	}
}

func (m *model) check(t *rapid.T) {
	var files []string
	for _, n := range m.l.Segments() {
		files = append(files, m.o.path(n))
	}
	st := m.l.Stats()
	if !m.l.NeedsPrepare() || slices.Contains(m.disk.Files(), m.o.reservePath()) {
		files = append(files, m.o.reservePath())
	}
	if got := m.disk.Files(); !slices.Equal(got, files) || st.Bytes != m.disk.Used() {
		t.Fatalf("files %v with %d bytes; the log says %v and %+v", got, m.disk.Used(), files, st)
	}
	if got := m.disk.OpenHandles(); got != st.Segments {
		t.Fatalf("%d files are open, want %d", got, st.Segments)
	}
}

// TestLogBehavesLikeAList makes random calls, with restarts and power cuts in between.
func TestLogBehavesLikeAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{disk: memdisk.New()}
		m.o = testOptions(m.disk)
		m.o.Segment = rapid.SampledFrom([]int64{MinSegment, 3 * pageSize, 512 << 10}).Draw(t, "segment")
		var err error
		if m.from, err = Create(m.o); err != nil {
			t.Fatal(err)
		}
		m.start(t, m.disk)
		var f follower
		t.Repeat(map[string]func(*rapid.T){
			"follow":  func(t *rapid.T) { f.follow(t, m) },
			"append":  m.append,
			"append ": m.append, // twice as often
			"prepare": func(t *rapid.T) {
				m.disk.SetRoom(m.disk.Used() + rapid.SampledFrom([]int64{0, 100, 300 << 10, 10 << 20}).Draw(t, "room"))
				if err := m.l.Prepare(); err != nil && !disk.IsFull(err) {
					t.Fatal(err)
				} else if (err != nil) != m.l.NeedsPrepare() {
					t.Fatalf("Prepare returned %v, one is needed: %v", err, m.l.NeedsPrepare())
				}
				m.disk.SetRoom(-1)
			},
			"checkpoint": m.checkpoint,
			"restart": func(t *rapid.T) {
				if err := m.l.Close(); err != nil {
					t.Fatal(err)
				}
				m.start(t, m.disk.Reopen())
			},
			"power cut": func(t *rapid.T) {
				seed := rapid.Uint64().Draw(t, "seed")
				m.start(t, m.disk.Crash(m.disk.Len(), rand.New(rand.NewPCG(seed, 0))))
			},
			"": m.check,
		})
	})
}
