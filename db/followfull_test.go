package db

import (
	"math/rand/v2"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

// tape is a Mirror that keeps every batch.
type tape struct {
	frames []wal.Frame
	ends   []wal.Pos
}

func (m *tape) Begin(f wal.Frame) {
	f.Records = append([]byte(nil), f.Records...)
	m.frames = append(m.frames, f)
}
func (m *tape) End(end wal.Pos) error { m.ends = append(m.ends, end); return nil }
func (m *tape) Cancel()               {}

// A follower that finds its disk full may have gone on in the next segment already. It
// says so, and takes the batch from there once there is room.
func TestFullFollowerGoesOnWhereItsLogEnds(t *testing.T) {
	fs := memdisk.New()
	if err := mustOpen(t, tiny(fs, newTestClock())).Close(); err != nil {
		t.Fatal(err)
	}
	other := fs.Crash(fs.Len(), rand.New(rand.NewPCG(1, 1)))
	m := &tape{}
	o := tiny(fs, newTestClock())
	o.Mirror = m
	d := mustOpen(t, o)
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	rolled := 0
	for i := 0; rolled == 0; i++ {
		if err := d.Do(&ValueSet{Key: Key{"a", "v"}, Data: make([]byte, 1000), Conditions: Conditions{Check: AnyVersion}}); err != nil {
			t.Fatal(err)
		}
		if f := m.frames[len(m.frames)-1]; f.Segment != f.From.Segment {
			rolled = len(m.frames) - 1
		}
	}
	f, err := OpenFollower(tiny(other, newTestClock()))
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range m.frames[:rolled] {
		if _, err := f.Append(frame); err != nil {
			t.Fatal(err)
		}
	}
	frame := m.frames[rolled]
	full := share(other, func(op memdisk.Op) bool { return isBatch(op) && strings.HasSuffix(op.Name, "2.seg") && op.Off >= 4096 })
	if end, err := f.Append(frame); !disk.IsFull(err) {
		t.Fatalf("appended on a full disk: %+v, %v", end, err)
	}
	full.full.Store(false)
	// The primary sends what follows from the end that the follower says.
	reader, err := d.Log().NewReader(f.End())
	if err != nil {
		t.Fatalf("the follower says that its log ends at %+v: %v", f.End(), err)
	}
	defer reader.Close()
	again, err := reader.NextFrame(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if end, err := f.Append(again); err != nil || end != m.ends[rolled] {
		t.Errorf("once there is room: %+v, %v; want %+v", end, err, m.ends[rolled])
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
