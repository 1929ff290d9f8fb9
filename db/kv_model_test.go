package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"clouddragon/db/store"
	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// tinyKV has segments of four pages, so that a few values fill one.
func tinyKV(fs *memdisk.FS, clock Clock) Options {
	return Options{FS: fs, Dir: "data", Segment: 16 << 10, Extent: 4096, CheckpointRoom: 8 << 10, Clock: clock}
}

type modelValue struct {
	data, typ string
	encoding  string
	version   int64
	expires   int64 // 0: never
}

// kvModel drives a database and a plain map side by side.
type kvModel struct {
	modelTime
	fs      *memdisk.FS
	db      *DB // nil: closed
	values  map[string]modelValue
	newest  int64 // version
	spoiled bool  // the index was damaged, and may still be
}

func (m *kvModel) open(t *rapid.T) {
	d, err := Open(tinyKV(m.fs, m.clock.read))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.db = d
	m.resume(t, d)
}

func (m *kvModel) value(key string) (modelValue, bool) {
	v, ok := m.values[key]
	return v, ok && (v.expires == 0 || v.expires > m.now())
}

var modelKeys = []string{"a", "b", "c", "d", "e", "f", "g", "h"}

func (m *kvModel) key(t *rapid.T) string { return rapid.SampledFrom(modelKeys).Draw(t, "key") }

// compare checks every key against the model.
func (m *kvModel) compare(t *rapid.T, d *DB, what string) {
	for _, k := range modelKeys {
		want, ok := m.value(k)
		got, err := d.Get(Key{"1", k})
		switch {
		case !ok && errors.Is(err, ErrNotFound):
		case !ok:
			t.Fatalf("%s: %s is back: version %d, %v", what, k, got.Version, err)
		case err != nil:
			t.Fatalf("%s: %s with version %d: %v", what, k, want.version, err)
		case (want.expires == 0) != (got.Left == 0) || want.expires != 0 && got.Left != time.Duration(want.expires-m.now()):
			t.Fatalf("%s: %s has %v left, want %v", what, k, got.Left, time.Duration(want.expires-m.now()))
		case string(got.Data) != want.data || got.Type != want.typ || got.Encoding != want.encoding || got.Version != want.version:
			t.Fatalf("%s: %s is version %d with %d bytes, want version %d with %d", what, k, got.Version, len(got.Data), want.version, len(want.data))
		}
	}
}

// rebuild opens a copy of the disk as it is, with an index built from the log.
func (m *kvModel) rebuild(t *rapid.T, what string) {
	m.notices(t, m.db)
	fs := m.fs.Clone()
	dropIndex(fs)
	d, err := Open(tinyKV(fs, m.clock.read))
	if err != nil {
		t.Fatalf("%s, the index rebuilt: %v", what, err)
	}
	m.compare(t, d, what+", the index rebuilt")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func dropIndex(fs *memdisk.FS) {
	if slices.Contains(fs.Files(), "data/index") {
		if err := fs.Remove("data/index"); err != nil {
			panic(err)
		}
	}
}

func (m *kvModel) set(t *rapid.T) {
	k := m.key(t)
	old, ok := m.value(k)
	r := SetRequest{Key: Key{"1", k}, Type: rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "type"), Check: AnyVersion}
	// Rarely large, so that some segments have many records.
	r.Data = make([]byte, rapid.SampledFrom([]int{0, 10, 100, 700, 3000}).Draw(t, "size"))
	for i := range r.Data {
		r.Data[i] = byte(int64(i) + m.newest)
	}
	var expires int64
	if rapid.IntRange(0, 3).Draw(t, "ttl") == 0 {
		r.TTL = 10 * time.Second
		expires = m.now() + int64(r.TTL)
	}
	wantErr := false
	switch rapid.IntRange(0, 4).Draw(t, "check") {
	case 0:
		r.Check, wantErr = 0, ok
	case 1:
		r.Check, wantErr = max(old.version, 1), !ok
	case 2:
		r.Check, wantErr = old.version+1, true
	}
	op := ValueSet{Key: r.Key, Data: r.Data, Type: r.Type, TTL: r.TTL, Conditions: Conditions{Check: r.Check}}
	op.Encoding = rapid.SampledFrom([]string{"", "gzip"}).Draw(t, "encoding")
	err := m.db.Do(&op)
	version := op.Version
	var conflict *ConflictError
	switch {
	case wantErr && errors.As(err, &conflict):
	case wantErr || err != nil:
		t.Fatalf("set %s, ver=%d over version %d: version %d, %v", k, r.Check, old.version, version, err)
	case version <= m.newest:
		t.Fatalf("version %d after %d", version, m.newest)
	default:
		m.newest = version
		if expires != 0 {
			m.give()
		}
		m.values[k] = modelValue{string(r.Data), r.Type, op.Encoding, version, expires}
	}
}

// retime gives a value another expiry, or none.
func (m *kvModel) retime(t *rapid.T) {
	k := m.key(t)
	old, ok := m.value(k)
	op := ValueTTL{Key: Key{"1", k}, Conditions: Conditions{Check: AnyVersion}}
	op.TTL = rapid.SampledFrom([]time.Duration{0, 5 * time.Second, 15 * time.Second}).Draw(t, "ttl")
	wrong := rapid.IntRange(0, 3).Draw(t, "check") == 0
	if wrong {
		op.Check = old.version + 1
	}
	err := m.db.Do(&op)
	switch {
	case wrong && isConflict(err), !ok && errors.Is(err, ErrNotFound):
		return
	case wrong || !ok || err != nil || op.Version != old.version:
		t.Fatalf("a ttl of %v for %s at version %d (there: %t), ver=%d: version %d, %v", op.TTL, k, old.version, ok, op.Check, op.Version, err)
	}
	old.expires = 0
	if op.TTL != 0 {
		m.give()
		old.expires = m.now() + int64(op.TTL)
	}
	m.values[k] = old
}

func (m *kvModel) delete(t *rapid.T) {
	k := m.key(t)
	if err := m.db.DeleteValue(Key{"1", k}, AnyVersion); err != nil {
		t.Fatal(err)
	}
	delete(m.values, k)
}

// roll starts a new segment, so that the earlier ones can be compacted.
func (m *kvModel) roll(t *rapid.T) {
	for at := m.db.store.Log.Stats().Appended + 13<<10; m.db.store.Log.Stats().Appended < at; {
		v, err := m.db.Set(SetRequest{Key: Key{"1", "h"}, Data: make([]byte, 3000), Check: AnyVersion})
		if err != nil {
			t.Fatal(err)
		}
		m.newest = v
		m.values["h"] = modelValue{string(make([]byte, 3000)), "", "", v, 0}
	}
	if err := m.db.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

// crash cuts the power: everything that was answered has to be there.
func (m *kvModel) crash(t *rapid.T) {
	m.end(t, m.db, false)
	m.fs.Freeze()
	after := m.fs.Crash(m.fs.Len(), rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))
	_ = m.db.Close() // on a dead disk
	m.db, m.fs = nil, after
}

func TestValuesAreAsInAMapOverRestartsCrashesAndCompaction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &kvModel{modelTime: newModelTime(), fs: memdisk.New(), values: map[string]modelValue{}}
		m.open(t)
		defer func() {
			if m.db != nil {
				_ = m.db.Close() // it may have failed already
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"set":    m.set,
			"set2":   m.set,
			"retime": m.retime,
			"delete": m.delete,
			"roll":   m.roll,
			"time":   func(t *rapid.T) { m.clock.pass(4 * time.Second) },
			"step":   m.step,
			"checkpoint": func(t *rapid.T) {
				if err := m.db.store.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			},
			"save the index": func(t *rapid.T) {
				if err := saveIndex(m.db); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				m.compactAny(t)
				m.compare(t, m.db, "compacted")
				m.rebuild(t, "compacted")
			},
			"restart": func(t *rapid.T) {
				m.end(t, m.db, true)
				err := m.db.Close()
				m.down(t)
				if m.db = nil; err != nil {
					t.Fatal(err)
				}
				m.spoilIndex(t)
				m.open(t)
				m.compare(t, m.db, "restarted")
			},
			"crash": func(t *rapid.T) {
				m.crash(t)
				m.down(t)
				fs := m.fs.Clone()
				if m.spoiled {
					dropIndex(fs)
				}
				if err := verifies(fs, tinyKV(fs, m.clock.read)); err != nil {
					t.Fatal(err)
				}
				m.spoilIndex(t)
				m.open(t)
				m.compare(t, m.db, "crashed")
			},
			"": func(t *rapid.T) {},
		})
		m.compare(t, m.db, "at the end")
		m.rebuild(t, "at the end")
	})
}

// compactAny compacts some segment before the checkpoint, worth it or not.
func (m *kvModel) compactAny(t *rapid.T) {
	var ready []uint64
	for n := range m.db.store.Values.Segments() {
		if n < m.db.store.CheckpointSegment() {
			ready = append(ready, n)
		}
	}
	slices.Sort(ready)
	if len(ready) == 0 {
		return
	}
	n := rapid.SampledFrom(ready).Draw(t, "segment")
	// A move gives up while the log's next segment is still being made.
	for range 10 {
		if m.db.store.CompactSegment(n) || !m.db.store.Values.Segments()[n] {
			return
		}
		if err := m.db.store.PrepareSegment(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("segment %d was not compacted", n)
}

// spoilIndex removes or damages the index snapshot, or leaves it.
func (m *kvModel) spoilIndex(t *rapid.T) {
	if !slices.Contains(m.fs.Files(), "data/index") {
		return
	}
	switch rapid.IntRange(0, 3).Draw(t, "spoil") {
	case 0:
		dropIndex(m.fs)
	case 1:
		m.spoiled = true
		b, err := m.fs.ReadFile("data/index")
		if err != nil {
			t.Fatal(err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if err := m.fs.WriteFile("data/index", b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOverwritingTheSameKeysLeavesABoundedLog(t *testing.T) {
	o := tinyKV(memdisk.New(), nil)
	o.Segment = 64 << 10
	d := mustOpen(t, o)
	const keys = 100
	size := 0
	for wrote := int64(0); wrote < 50*o.Segment; {
		k := fmt.Sprint(rand.IntN(keys))
		data := make([]byte, 200)
		if _, err := d.Set(SetRequest{Key: Key{"1", k}, Data: data, Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
		wrote += 256
	}
	if err := d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	d.store.Compact()
	s := d.Stats()
	size = int(s.Log.Bytes)
	// In addition to ratio and slack: the segment being written, the prepared one, and the
	// reserve.
	if bound := 2*s.Values.Live + (store.CompactSlack+3)*o.Segment; int64(size) > bound {
		t.Errorf("the log has %d bytes with %d live, at most %d are allowed", size, s.Values.Live, bound)
	}
	if s.Values.Keys != keys || s.Compaction.Freed == 0 {
		t.Errorf("%d keys, %+v", s.Values.Keys, s.Compaction)
	}
	mustClose(t, d)
}
