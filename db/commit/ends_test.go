package commit_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/test/memdisk"
	"clouddragon/slots"
)

// endingKind is a kind of things with an end. The payload is the end, followed by anything.
const endingKind = 8

func endOf(payload []byte) int64 { return int64(binary.LittleEndian.Uint64(payload)) }

func endingKey(id string) slots.Key { return slots.Key{Kind: endingKind, Acc: "a", ID: id} }

// began is the database time at which a rig starts.
const began = 1_800_000_000e9

// lasts returns the operation that gives a thing an end; 0: none.
func lasts(id string, end int64, more int) commit.Op {
	return opFunc(func(tx *commit.Tx) error {
		b := tx.Bytes(8 + more)
		binary.LittleEndian.PutUint64(b, uint64(end))
		tx.Date()
		return tx.Put(tx.Entry(endingKey(id), endingKey(id).Hash()), b)
	})
}

func (r *rig) exists(id string) bool {
	_, ok := r.store.Tables.Get(endingKey(id), endingKey(id).Hash(), nil)
	return ok
}

// published collects what is published.
type published struct {
	mu  sync.Mutex // guards all
	all []commit.Touched
}

func (p *published) publish(_ commit.Moment, changes []commit.Touched) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changes {
		c.Payload = slices.Clone(c.Payload)
		p.all = append(p.all, c)
	}
}

func (p *published) take() []commit.Touched {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.all
	p.all = nil
	return all
}

// awaitUsed waits until so many slots are in use.
func awaitUsed(t *testing.T, r *rig, want uint64) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		used := uint64(0)
		for _, c := range r.store.Stats().Tables.Classes {
			used += c.Used
		}
		if used == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d slots are in use, want %d", used, want)
		}
		r.Ring()
	}
}

// A thing expires although nobody asks for it, at its time and not before, and the reason is
// published.
func TestExpiredThingsGiveTheirSlotsBack(t *testing.T) {
	var told published
	r := newRig(t, 1<<20, commit.Options{Publish: told.publish})
	wantDone(t, "put", r.Do(lasts("a", began+int64(time.Minute), 0)))
	wantDone(t, "put", r.Do(lasts("b", 0, 0)))
	told.take()
	r.pass(time.Minute - 1)
	wantDone(t, "a write", r.Do(lasts("b", 0, 0)))
	if !r.exists("a") {
		t.Error("it ended before its time")
	}
	told.take()
	r.pass(1)
	awaitUsed(t, r, 1)
	r.Writer.Close() // until then the last batch may not be published yet
	want := commit.Touched{Kind: endingKind, Acc: "a", ID: "a", Gone: true, Expired: true}
	if got := told.take(); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("published %+v, want %+v", got, want)
	}
	if !r.exists("b") {
		t.Error("what has no end ended")
	}
	wantDone(t, "close", r.store.Close(r.tokens.Stop()))
}

// If an end is put off, brought forward or removed, the newest one counts, even if the thing
// has moved to a slot of another size.
func TestTheLastEndCounts(t *testing.T) {
	r := newRig(t, 1<<20, commit.Options{})
	for _, id := range []string{"later", "sooner", "never", "moved", "removed"} {
		wantDone(t, "put", r.Do(lasts(id, began+100, 0)))
	}
	wantDone(t, "put off", r.Do(lasts("later", began+200, 0)))
	wantDone(t, "bring forward", r.Do(lasts("sooner", began+50, 0)))
	wantDone(t, "take away", r.Do(lasts("never", 0, 0)))
	wantDone(t, "move", r.Do(lasts("moved", began+100, 100)))
	gone := endingKey("removed")
	wantDone(t, "remove", r.Do(opFunc(func(tx *commit.Tx) error {
		tx.Remove(tx.Entry(gone, gone.Hash()))
		return nil
	})))
	wantDone(t, "put into the same slot", r.Do(lasts("heir", began+300, 0)))
	left := []string{"later", "sooner", "never", "moved", "heir"}
	for _, step := range []struct {
		at    int64
		ended []string
	}{{49, nil}, {50, []string{"sooner"}}, {100, []string{"moved"}}, {200, []string{"later"}}, {1000, []string{"heir"}}} {
		r.mono.Store(step.at)
		left = slices.DeleteFunc(left, func(id string) bool { return slices.Contains(step.ended, id) })
		awaitUsed(t, r, uint64(len(left)))
		for _, id := range left {
			if !r.exists(id) {
				t.Errorf("%q ended at %d", id, step.at)
			}
		}
	}
	r.close(t)
}

// A thing that gets a new end in the batch that would remove it stays.
func TestThingPutAgainInTheBatchThatExpiresItStays(t *testing.T) {
	r := newRig(t, 1<<20, commit.Options{})
	wantDone(t, "put", r.Do(lasts("a", began+1, 0)))
	r.pass(1)
	wantDone(t, "put anew", r.Do(lasts("a", began+10, 0)))
	r.Ring()
	if !r.exists("a") {
		t.Error("it ended")
	}
	r.pass(9)
	awaitUsed(t, r, 0)
	r.close(t)
}

// A million things may expire at once: a caller's write waits for only a few of them.
func TestABatchEndsAtMostAThousandThings(t *testing.T) {
	var most atomic.Int64 // things that one batch has ended
	r := newRig(t, 16<<20, commit.Options{Publish: func(_ commit.Moment, all []commit.Touched) {
		ended := int64(0)
		for _, c := range all {
			if c.Expired {
				ended++
			}
		}
		most.Store(max(most.Load(), ended)) // batches are published one after the other
	}})
	const n = 2500
	for i := range n {
		wantDone(t, "put", r.Do(lasts(fmt.Sprint(i), began+int64(time.Hour), 0)))
	}
	done := takeTurn(t, r) // the timer does not ring meanwhile
	r.pass(time.Hour)
	r.Lead()
	<-done
	awaitUsed(t, r, 1)
	r.close(t)
	if n := most.Load(); n == 0 || n > 1000 {
		t.Errorf("a batch ended %d things", n)
	}
}

// The next process knows every end, whether the last process was stopped or killed.
func TestEndsOutliveTheProcess(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, how := range []string{"closed", "killed"} {
		fs := memdisk.New()
		r := openRig(t, fs, 64<<10, commit.Options{})
		for i := range 300 {
			wantDone(t, "put", r.Do(lasts(fmt.Sprint(i), began+1+int64(rnd.IntN(100)), rnd.IntN(2)*100)))
		}
		if how == "killed" {
			fs = fs.Reopen()
		}
		r.close(t)
		r = openRig(t, fs, 64<<10, commit.Options{})
		awaitUsed(t, r, 300)
		r.pass(1000)
		awaitUsed(t, r, 0)
		r.close(t)
	}
}

// Changes under a hidden id are not published.
func TestHiddenValuesAreNotPublished(t *testing.T) {
	var told published
	r := newRig(t, 1<<20, commit.Options{Publish: told.publish})
	for _, id := range []string{commit.Hidden + "a", "seen"} {
		k := slots.Key{Acc: "a", ID: id}
		wantDone(t, "a value", r.Do(opFunc(func(tx *commit.Tx) error {
			e := tx.AddValue(k, 1, noValue)
			tx.PutValue(e, &commit.NewValue{})
			tx.RetimeValue(e, &commit.NewValue{})
			tx.RemoveValue(e, true, 0)
			return nil
		})))
	}
	all := told.take()
	if len(all) != 3 || all[0].ID != "seen" || !all[1].EndOnly || !all[2].Gone {
		t.Errorf("published %+v", all)
	}
	r.close(t)
}
