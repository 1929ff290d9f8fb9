package kvlog

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

var testID = [16]byte([]byte("the directory ID"))

// valuesRig is a log with values, written to as db does it.
type valuesRig struct {
	t       testing.TB
	disk    *memdisk.FS
	o       wal.Options
	l       *wal.Log
	v       *Values
	first   wal.Pos
	end     wal.Pos
	version uint64
}

func newValuesRig(t testing.TB) *valuesRig {
	r := &valuesRig{t: t, disk: memdisk.New()}
	r.o = wal.Options{FS: r.disk, Dir: "log", ID: testID, Segment: 64 << 10}
	var err error
	if r.first, err = wal.Create(r.o); err != nil {
		t.Fatal(err)
	}
	if r.l, err = wal.Open(r.o, r.first, []uint64{r.first.Segment}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.l.Close(); err != nil {
			t.Error(err)
		}
	})
	tail, err := r.l.Replay(func(uint64, wal.Records) error { return nil })
	if err == nil {
		err = r.l.Repair(tail)
	}
	if err == nil {
		err = r.l.Start(tail)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.end = r.first
	r.v = NewValues(r.l)
	return r
}

// apply appends a batch and applies its steps.
func (r *valuesRig) apply(b *wal.Batch, steps ...Step) {
	r.t.Helper()
	if b.Len() > r.l.Room(true) {
		if err := r.l.Prepare(); err != nil {
			r.t.Fatal(err)
		}
	}
	end, err := r.l.Append(b)
	if err != nil {
		r.t.Fatal(err)
	}
	start := end
	start.Offset -= int64(b.Len())
	r.v.Apply(start, steps)
	r.end = end
}

func (r *valuesRig) find(id string) (uint64, Found) {
	r.t.Helper()
	hash := r.v.Hash("acc", id)
	f, err := r.v.Find("acc", id, hash)
	if err != nil && !errors.Is(err, ErrDamaged) {
		r.t.Fatal(err)
	}
	return hash, f
}

func (r *valuesRig) set(id, data string, expires int64) {
	r.t.Helper()
	r.version++
	hash, old := r.find(id)
	var b wal.Batch
	p := b.AddDirty(TypeValue, ValueSize("acc", id, "", "", len(data)))
	r.v.Put(p, "acc", id, "", "", r.version, expires, []byte(data), SumValue([]byte(data)))
	r.apply(&b, Step{Hash: hash, At: b.Len() - wal.RecordSize(len(p)), Size: wal.RecordSize(len(p)), Expires: expires, Old: old})
}

func (r *valuesRig) delete(id string) {
	r.t.Helper()
	hash, old := r.find(id)
	var b wal.Batch
	p := b.Add(TypeTombstone, TombstoneSize("acc", id))
	PutTombstone(p, "acc", id, 0)
	r.apply(&b, Step{Hash: hash, At: -1, Old: old, Tombstone: wal.RecordSize(len(p))})
}

// want checks what a key has; "" is no value.
func (r *valuesRig) want(v *Values, id, data string) {
	r.t.Helper()
	val, ok, err := v.Get("acc", id, v.Hash("acc", id), math.MaxInt)
	if err != nil || ok != (data != "") || string(val.Data) != data {
		r.t.Errorf("%s is %q, %v, %v; want %q", id, val.Data, ok, err, data)
	}
}

// reopen opens what is on the disk, with the snapshot if it is good.
func (r *valuesRig) reopen(disk *memdisk.FS, checkpoint wal.Pos) (*Values, error) {
	r.t.Helper()
	o := r.o
	o.FS = disk
	l, err := wal.Open(o, checkpoint, r.l.Segments())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			r.t.Error(err)
		}
	})
	v := NewValues(l)
	from, _, bad := v.Load(disk, ".")
	take := func(recs wal.Records) error {
		for rec := range recs.All() {
			if _, err := v.Replay(recs, rec); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.ScanBefore(from, take, v.Salvage); err != nil {
		r.t.Fatal(err)
	}
	if _, err := l.Replay(func(_ uint64, recs wal.Records) error { return take(recs) }); err != nil {
		r.t.Fatal(err)
	}
	return v, bad
}

func (r *valuesRig) save(at wal.Pos) []byte {
	r.t.Helper()
	if _, err := r.v.Freeze(at).Write(r.disk, "."); err != nil {
		r.t.Fatal(err)
	}
	b, err := r.disk.ReadFile(SnapshotName)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// fill sets new keys until the log continues in the next segment.
func (r *valuesRig) fill(prefix string) {
	r.t.Helper()
	for i, s := 0, r.end.Segment; r.end.Segment == s; i++ {
		r.set(fmt.Sprint(prefix, i), strings.Repeat("x", 1000), 0)
	}
}

// survey returns what must be kept of a segment, in chunks of 4 KiB.
func (r *valuesRig) survey(segment uint64) (chunks [][]Move) {
	r.t.Helper()
	err := r.v.Survey(segment, func() int { return 4096 }, func(moves []Move) error {
		chunks = append(chunks, slices.Clone(moves))
		return nil
	}, func(err error) { r.t.Error(err) })
	if err != nil {
		r.t.Fatal(err)
	}
	return chunks
}
