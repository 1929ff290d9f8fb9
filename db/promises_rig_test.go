package db_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
)

// world is a disk, a clock and the database on them.
type world struct {
	t    *testing.T
	fs   *memdisk.FS
	rnd  *rand.Rand
	o    db.Options
	d    *db.DB
	mu   sync.Mutex // guards time
	time int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, fs: memdisk.New(), rnd: rand.New(rand.NewPCG(1, 2)), time: 1_800_000_000e9}
	w.o = db.Options{
		Dir: "data", Segment: 64 << 10, Extent: 4096, CheckpointRoom: 4096, CheckpointEvery: 16 << 10,
		Clock: func() (mono, wall int64) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.time, w.time
		},
	}
	w.open(w.fs)
	t.Cleanup(func() {
		if w.d != nil {
			w.close()
		}
	})
	return w
}

func (w *world) open(fs *memdisk.FS) {
	w.t.Helper()
	w.fs, w.o.FS = fs, fs
	d, err := db.Open(w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.d = d
}

func (w *world) close() {
	w.t.Helper()
	if err := w.d.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.d = nil
}

func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.open(w.fs)
}

// powerCut reopens the database with what a power cut now leaves on the disk.
func (w *world) powerCut() {
	w.t.Helper()
	after := w.fs.Crash(w.fs.Len(), w.rnd)
	w.close()
	w.open(after)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.time += int64(d)
}

func key(id string) db.Key { return db.Key{Acc: "acc", ID: id} }

func do[O db.Operation](w *world, op O) O {
	w.t.Helper()
	if err := w.d.Do(op); err != nil {
		w.t.Fatalf("%T: %v", op, err)
	}
	return op
}

func next(w *world, id string) int64 {
	w.t.Helper()
	return do(w, &db.SequenceAdd{Key: key(id), N: 1}).Value
}

func set(w *world, id, data string) int64 {
	w.t.Helper()
	return do(w, &db.ValueSet{Key: key(id), Data: []byte(data), Conditions: db.Conditions{Check: db.AnyVersion}}).Version
}

func wantValue(t *testing.T, d *db.DB, id, want string) {
	t.Helper()
	v, err := d.Get(key(id))
	if want == "" && errors.Is(err, db.ErrNotFound) {
		return
	}
	if err != nil || string(v.Data) != want {
		t.Errorf("value %q is %q (%v), want %q", id, v.Data, err, want)
	}
}

func lock(id, owner string, dur time.Duration) *db.LockTake {
	return &db.LockTake{LockRequest: db.LockRequest{Key: key(id), Owner: owner, Dur: dur}}
}

// wantConflict does an operation that has to be refused, as a lost race.
func wantConflict(w *world, op db.Operation) {
	w.t.Helper()
	err := w.d.Do(op)
	var conflict *db.ConflictError
	var held *db.HeldError
	if !errors.As(err, &conflict) && !errors.As(err, &held) {
		w.t.Errorf("%T: %v, want a refusal", op, err)
	}
}
