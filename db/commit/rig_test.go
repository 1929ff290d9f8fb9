package commit_test

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// rig is a writer on a simulated disk.
type rig struct {
	*commit.Writer
	fs     *memdisk.FS
	store  *store.Store
	tokens *commit.Tokens
	alarm  *alarm
	mono   atomic.Int64
}

// newRig opens a new directory with segments of that size.
func newRig(t *testing.T, segment int64, o commit.Options) *rig {
	t.Helper()
	return openRig(t, memdisk.New(), segment, o)
}

func openRig(t *testing.T, fs *memdisk.FS, segment int64, o commit.Options) *rig {
	t.Helper()
	r := &rig{fs: fs, alarm: new(alarm)}
	s, recovered, err := store.Open(store.Options{
		FS: fs, Dir: "data", Segment: segment, Extent: 4096, CheckpointRoom: 4096,
		Clock: func() (mono, wall int64) { return r.mono.Load(), 1_800_000_000e9 + r.mono.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.store, r.tokens = s, recovered.Tokens
	if o.QuietAfter == 0 {
		o.QuietAfter = time.Hour
	}
	if o.Batch == nil {
		o.Batch = func(commit.Batch) {}
	}
	o.Parts = []commit.Part{r.alarm}
	if o.Ends, err = commit.NewEnds(s.Tables, map[uint8]commit.EndOf{endingKind: endOf}); err != nil {
		t.Fatal(err)
	}
	r.Writer = s.NewWriter(recovered, o)
	s.Start()
	r.Start()
	return r
}

func (r *rig) close(t *testing.T) {
	t.Helper()
	r.Writer.Close()
	if err := r.store.Close(r.tokens.Stop()); err != nil {
		t.Fatal(err)
	}
}

// pass advances the clock.
func (r *rig) pass(d time.Duration) { r.mono.Add(int64(d)) }

// number returns what a thing holds, which is durable; ok is false if there is none.
func (r *rig) number(id string) (n int64, ok bool) {
	k := key(id)
	b, ok := r.store.Tables.Get(k, k.Hash(), nil)
	if !ok {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(b)), true
}

func key(id string) slots.Key { return slots.Key{Kind: 9, Acc: "a", ID: id} }

// opFunc makes a function an operation.
type opFunc func(tx *commit.Tx) error

func (opFunc) Size() int                     { return commit.SlotChange }
func (opFunc) Frees() bool                   { return false }
func (f opFunc) Decide(tx *commit.Tx) error  { return f(tx) }
func get(tx *commit.Tx, id string) (n int64) { return numberOf(entry(tx, id)) }

func entry(tx *commit.Tx, id string) *commit.Entry { return tx.Entry(key(id), key(id).Hash()) }

func numberOf(e *commit.Entry) int64 {
	if !e.Live() {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(e.Payload()))
}

// put sets a number. The payload has that many additional bytes.
func put(tx *commit.Tx, id string, n int64, more int) error {
	b := tx.Bytes(8 + more)
	binary.LittleEndian.PutUint64(b, uint64(n))
	return tx.Put(entry(tx, id), b)
}

func remove(tx *commit.Tx, id string) {
	if e := entry(tx, id); e.Live() {
		tx.Remove(e)
	}
}

// add is the operation that adds to a number.
func add(id string, n int64) commit.Op {
	return opFunc(func(tx *commit.Tx) error { return put(tx, id, get(tx, id)+n, 0) })
}

// large is an operation that adds a record of that many bytes to the log.
type large struct{ data []byte }

func (o *large) Frees() bool { return false }

func (o *large) Size() int { return wal.RecordSize(len(o.data) + 100) }

func (o *large) Decide(tx *commit.Tx) error {
	k := slots.Key{Acc: "a", ID: "large"}
	e := tx.Decided(k, 1)
	if e == nil {
		e = tx.AddValue(k, 1, noValue)
	}
	tx.PutValue(e, &commit.NewValue{Data: o.data})
	return nil
}

// call returns a call and a channel that is closed once the call is answered.
func call(op commit.Op) (*commit.Call, <-chan struct{}) {
	done := make(chan struct{})
	return &commit.Call{Op: op, Done: func(*commit.Call) { close(done) }}, done
}

// alarm is a Part that adds to a number at an instant.
type alarm struct {
	marks []alarmMark // of the savepoints of the batch
	mu    sync.Mutex  // guards at: a test sets it while the writer looks
	at    int64       // 0: never

	state   int   // changed within transactions; owned by the writer
	drained error // the last error of Drain; owned by the writer
}

// alarmMark is the state of an alarm at a savepoint.
type alarmMark struct {
	state int
	at    int64
}

func (a *alarm) set(at int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = at
}

func (a *alarm) Next() (at int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at, a.at != 0
}

func (a *alarm) Expire(tx *commit.Tx) error {
	a.set(0)
	return put(tx, "alarm", get(tx, "alarm")+1, 0)
}

func (a *alarm) Mark(*commit.Tx) int {
	at, _ := a.Next()
	a.marks = append(a.marks, alarmMark{a.state, at})
	return len(a.marks) - 1
}

func (a *alarm) Undo(mark int) {
	m := a.marks[mark]
	a.state, a.marks = m.state, a.marks[:mark]
	a.set(m.at)
}

func (a *alarm) Forget()                       { a.marks = a.marks[:0] }
func (a *alarm) TimeOut(*commit.Tx)            {}
func (a *alarm) Drain(_ *commit.Tx, err error) { a.drained = err }
func (a *alarm) Committed()                    {}

// soon receives a value that must come soon.
func soon[T any](t *testing.T, what string, c <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal(what, "does not come")
	}
	return got
}

func wantDone(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
