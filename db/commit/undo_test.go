package commit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"clouddragon/db/commit"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
	"clouddragon/slots"
)

// verb is what a change does.
type verb int

const (
	put9 verb = iota
	remove9
	replace9
	setValue
	retimeValue
	removeValue
	bump // the state of a Part
	verbs
)

// change is one change within an operation: of a slot or of a value.
type change struct {
	verb      verb
	id, other string
	n         int64
	more      int // bytes of the payload behind the number
}

// plan is an operation: its changes, those that are tried and undone, and whether it is
// refused in the end.
type plan struct {
	changes, tried []change
	refused        bool
}

var undoIDs = []string{"a", "b", "c", "d", "e"}

// world is the expected state, as plain maps.
type world struct {
	slots  map[string]string // payloads
	values map[string]int64
	bumps  int
}

func newWorld() *world { return &world{slots: map[string]string{}, values: map[string]int64{}} }

// payload returns a number and that many additional bytes.
func payload(n int64, more int) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(n))) + strings.Repeat("x", more)
}

// enter makes a change in the maps.
func (w *world) enter(c change) {
	switch c.verb {
	case put9:
		w.slots[c.id] = payload(c.n, c.more)
	case remove9:
		delete(w.slots, c.id)
	case replace9:
		if w.replaces(c) {
			w.slots[c.other] = payload(c.n, len(w.slots[c.id])-8)
			delete(w.slots, c.id)
		}
	case setValue:
		w.values[c.id] = c.n
	case retimeValue:
		if _, ok := w.values[c.id]; ok {
			w.values[c.id] = c.n
		}
	case removeValue:
		delete(w.values, c.id)
	case bump:
		w.bumps++
	}
}

func (w *world) replaces(c change) bool {
	_, from := w.slots[c.id]
	_, to := w.slots[c.other]
	return from && !to
}

// enter makes a change in a transaction.
func (r *rig) enter(tx *commit.Tx, c change) error {
	switch c.verb {
	case put9:
		return tx.Put(entry(tx, c.id), []byte(payload(c.n, c.more)))
	case remove9:
		remove(tx, c.id)
	case replace9:
		from := entry(tx, c.id)
		size := len(from.Payload())
		if from.Live() && !entry(tx, c.other).Live() {
			tx.Replace(key(c.id), key(c.id).Hash(), key(c.other), key(c.other).Hash(), []byte(payload(c.n, size-8)))
		}
	case setValue:
		tx.PutValue(r.value(tx, c.id), newValue(c.n, 0))
	case retimeValue:
		if e := r.value(tx, c.id); e.Found().OK {
			tx.RetimeValue(e, newValue(c.n, tx.Now()+1e9))
		}
	case removeValue:
		if e := r.value(tx, c.id); e.Found().OK {
			tx.RemoveValue(e, true, 0)
		}
	case bump:
		r.alarm.state++
	}
	return nil
}

func newValue(n, expires int64) *commit.NewValue {
	data := fmt.Append(nil, n)
	return &commit.NewValue{Data: data, Sum: kvlog.SumValue(data), Expires: expires}
}

func (r *rig) value(tx *commit.Tx, id string) *commit.ValueEntry {
	k := slots.Key{Acc: "a", ID: id}
	hash := r.store.Values.Hash(k.Acc, k.ID)
	if e := tx.Decided(k, hash); e != nil {
		return e
	}
	found, err := r.store.Values.Find(k.Acc, k.ID, hash)
	if err != nil {
		panic(err)
	}
	return tx.AddValue(k, hash, found)
}

var errRefused = errors.New("refused")

// run submits operations as one batch. With all it also does the changes that are undone.
func (r *rig) run(t *testing.T, plans []plan, all bool) {
	t.Helper()
	look := opFunc(func(tx *commit.Tx) error {
		for _, id := range undoIDs { // so that the order in the log is the same
			entry(tx, id)
			r.value(tx, id)
		}
		return nil
	})
	calls, done := []*commit.Call{}, make(chan struct{}, len(plans)+1)
	submit := func(op commit.Op) {
		calls = append(calls, &commit.Call{Op: op, Done: func(*commit.Call) { done <- struct{}{} }})
	}
	submit(look)
	for _, p := range plans {
		if p.refused && !all {
			continue
		}
		submit(opFunc(func(tx *commit.Tx) error {
			if all {
				if err := tx.Try(r.tries(p.tried, true)); err != errRefused {
					return fmt.Errorf("tried: %v", err)
				}
			}
			return r.tries(p.changes, p.refused)(tx)
		}))
	}
	wantDone(t, "submit", r.Submit(calls...))
	for _, c := range calls {
		<-done
		if c.Err != nil && c.Err != errRefused {
			t.Fatal(c.Err)
		}
	}
}

// tries is the operation that makes changes, and may be refused after them.
func (r *rig) tries(changes []change, refused bool) opFunc {
	return func(tx *commit.Tx) error {
		for _, c := range changes {
			if err := r.enter(tx, c); err != nil {
				return err
			}
		}
		if refused {
			return errRefused
		}
		return nil
	}
}

// check compares everything with the maps.
func (w *world) check(t *testing.T, r *rig, what string) {
	t.Helper()
	for _, id := range undoIDs {
		got, ok := r.store.Tables.Get(key(id), key(id).Hash(), nil)
		if want, is := w.slots[id]; ok != is || string(got) != want {
			t.Fatalf("%s: slot %s is %q, %t; want %q, %t", what, id, got, ok, want, is)
		}
		val, ok, err := r.store.Values.Get("a", id, r.store.Values.Hash("a", id), 1000)
		if want, is := w.values[id]; err != nil || ok != is || is && !strings.HasPrefix(string(val.Data), fmt.Sprint(want)) {
			t.Fatalf("%s: value %s is %q, %t, %v; want %d, %t", what, id, val.Data, ok, err, want, is)
		}
	}
	used := 0
	for _, c := range r.store.Stats().Tables.Classes {
		used += int(c.Used)
	}
	if used != len(w.slots) {
		t.Fatalf("%s: %d slots are in use, want %d", what, used, len(w.slots))
	}
}

func logBytes(t *testing.T, fs *memdisk.FS) []byte {
	t.Helper()
	b, err := fs.ReadFile("data/log/00000001.seg")
	wantDone(t, "read the log", err)
	return b
}

// A refused operation leaves no trace. With any number of them in a batch, and with tried
// changes inside other operations, the log, the tables, the index, the Parts and the published
// changes are the same as without them, byte for byte. Everything agrees with plain maps,
// before and after a start from the log.
func TestARefusedOperationLeavesNothing(t *testing.T) {
	empty := memdisk.New()
	openRig(t, empty, 1<<20, commit.Options{}).close(t)
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var with, without published
		fsWith, fsWithout := empty.Clone(), empty.Clone()
		a := openRig(t, fsWith, 1<<20, commit.Options{Publish: with.publish})
		b := openRig(t, fsWithout, 1<<20, commit.Options{Publish: without.publish})
		w := newWorld()
		for batch := range 8 {
			plans := somePlans(rnd)
			for _, p := range plans {
				if !p.refused {
					for _, c := range p.changes {
						w.enter(c)
					}
				}
			}
			a.run(t, plans, true)
			b.run(t, plans, false)
			what := fmt.Sprintf("seed %d, batch %d", seed, batch)
			w.check(t, a, what)
			if a.alarm.state != w.bumps {
				t.Fatalf("%s: a Part is at %d, want %d", what, a.alarm.state, w.bumps)
			}
			if got, want := with.take(), without.take(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: published\n%+v\nwithout refusals\n%+v", what, got, want)
			}
			if !bytes.Equal(logBytes(t, fsWith), logBytes(t, fsWithout)) {
				t.Fatalf("%s: the log is another than without refusals", what)
			}
		}
		killed := fsWith.Reopen()
		a.close(t)
		b.close(t)
		again := openRig(t, killed, 1<<20, commit.Options{})
		w.check(t, again, fmt.Sprintf("seed %d, from the log", seed))
		again.close(t)
	}
}

func somePlans(rnd *rand.Rand) []plan {
	plans := make([]plan, 1+rnd.IntN(6))
	for i := range plans {
		plans[i] = plan{someChanges(rnd), someChanges(rnd), rnd.IntN(2) == 0}
	}
	return plans
}

func someChanges(rnd *rand.Rand) []change {
	all := make([]change, rnd.IntN(5))
	for i := range all {
		all[i] = change{
			verb: verb(rnd.IntN(int(verbs))), id: undoIDs[rnd.IntN(len(undoIDs))], other: undoIDs[rnd.IntN(len(undoIDs))],
			n: 1000 + int64(rnd.IntN(9000)), more: rnd.IntN(2) * 60,
		}
	}
	if len(all) > 1 && rnd.IntN(2) == 0 { // a thing that ends, and whose slot another thing takes over
		all[0].verb, all[1] = replace9, change{verb: remove9, id: all[0].other}
	}
	return all
}

// A waiter that a refused operation would have answered keeps waiting.
func TestARefusedOperationAnswersNobody(t *testing.T) {
	r := newRig(t, 16<<10, commit.Options{})
	answered := make(chan struct{}, 2)
	waiter := &commit.Call{Op: opFunc(func(*commit.Tx) error { return commit.ErrWaiting }), Done: func(*commit.Call) { answered <- struct{}{} }}
	wantDone(t, "submit", r.Submit(waiter))
	err := r.Do(opFunc(func(tx *commit.Tx) error {
		tx.Answer(waiter, nil)
		return errRefused
	}))
	if err != errRefused {
		t.Fatal(err)
	}
	select {
	case <-answered:
		t.Error("the waiter is answered")
	default:
	}
	wantDone(t, "answer", r.Do(opFunc(func(tx *commit.Tx) error {
		tx.Answer(waiter, nil)
		return nil
	})))
	<-answered
	r.close(t)
}

// Published changes can be read, and a change that is not durable because the disk failed is
// not published.
func TestOnlyWhatIsDurableIsPublished(t *testing.T) {
	var r *rig
	told := 0
	r = newRig(t, 1<<20, commit.Options{Publish: func(_ commit.Moment, all []commit.Touched) {
		for _, c := range all {
			told++
			if got, ok := r.number(c.ID); !ok || got != int64(binary.LittleEndian.Uint64(c.Payload)) {
				t.Errorf("%q is published with %x, and is %d, %t", c.ID, c.Payload, got, ok)
			}
		}
	}})
	for range 3 {
		wantDone(t, "an increment", r.Do(add("a", 1)))
	}
	g := r.fs.NewBarrier()
	c, done := call(add("a", 1))
	go func() { _ = r.Submit(c) }() // its error is the call's
	<-g.Reached
	g.Pass <- errors.New("the disk failed")
	<-done
	if !errors.Is(c.Err, commit.ErrUnknown) {
		t.Errorf("the call: %v", c.Err)
	}
	if told != 3 {
		t.Errorf("%d changes were published, want 3", told)
	}
	r.Writer.Close()
	_ = r.store.Close(0) // on a failed disk
}
