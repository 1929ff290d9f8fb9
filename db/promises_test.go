package db_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// What the database promises to its users. These tests use only exported names, such as Open,
// Do, Submit and Close, and a disk that can lose what was not synced. So they survive a
// redesign.

func TestNumbersTokensAndVersionsAreNeverUsedTwice(t *testing.T) {
	w := newWorld(t)
	var number, token, version int64
	for i := range 30 {
		n := next(w, "s")
		tok := do(w, lock(fmt.Sprint("l", i), "", time.Hour)).Holder.Token
		ver := set(w, "v", fmt.Sprint(i))
		if n <= number || tok <= token || ver <= version {
			t.Fatalf("after %d, %d and %d come %d, %d and %d", number, token, version, n, tok, ver)
		}
		number, token, version = n, tok, ver
		do(w, &db.ValueDelete{Key: key("v"), Conditions: db.Conditions{Check: db.AnyVersion}})
		switch i % 3 {
		case 1:
			w.restart()
		case 2:
			w.powerCut()
		}
	}
}

func TestWhatWasAnsweredSurvivesAPowerCutAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	type state struct {
		number int64
		value  string
		owner  string
	}
	answered := state{}
	w.fs.Mark(answered)
	for i := range 12 {
		answered.number = next(w, "s")
		w.fs.Mark(answered)
		answered.value = fmt.Sprint("value ", i)
		set(w, "v", answered.value)
		w.fs.Mark(answered)
		answered.owner = fmt.Sprint("owner ", i)
		do(w, &db.LockRelease{UnlockRequest: db.UnlockRequest{Key: key("l"), Force: true}})
		do(w, lock("l", answered.owner, time.Hour))
		w.fs.Mark(answered)
	}
	for cut := range w.fs.Cuts() {
		marks := cut.Marks()
		if len(marks) == 0 || !cut.Unsynced() && w.rnd.IntN(8) != 0 {
			continue
		}
		was := marks[len(marks)-1].(state)
		o := w.o
		o.FS = cut.Random(w.rnd)
		d, err := db.Open(o)
		if err != nil {
			t.Fatalf("after a cut at %d: %v", cut.At(), err)
		}
		// Calls in flight may have been done too.
		if n, err := d.Sequence(key("s")); (err != nil && was.number > 0) || n < was.number || n > was.number+1 {
			t.Errorf("after a cut at %d the sequence is at %d (%v), and %d was answered", cut.At(), n, err, was.number)
		}
		v, err := d.Get(key("v"))
		if newer := fmt.Sprint("value ", was.number-1); string(v.Data) != was.value && string(v.Data) != newer {
			t.Errorf("after a cut at %d the value is %q (%v), and %q was answered", cut.At(), v.Data, err, was.value)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusalChangesNothing(t *testing.T) {
	w := newWorld(t)
	do(w, &db.CounterAdd{Key: key("c"), Add: 5, Min: math.MinInt64, Max: math.MaxInt64})
	ver := set(w, "v", "first")
	token := do(w, lock("l", "a", time.Hour)).Holder.Token
	for range 2 {
		wantConflict(w, &db.CounterAdd{Key: key("c"), Add: -6, Min: 0, Max: 10})
		wantConflict(w, &db.CounterAdd{Key: key("c"), Add: math.MaxInt64, Min: math.MinInt64, Max: math.MaxInt64})
		wantConflict(w, &db.ValueSet{Key: key("v"), Data: []byte("x"), Conditions: db.Conditions{Check: 0}})
		wantConflict(w, &db.ValueSet{Key: key("v"), Data: []byte("x"), Conditions: db.Conditions{Check: ver + 1}})
		wantConflict(w, &db.ValueDelete{Key: key("v"), Conditions: db.Conditions{Check: ver + 1}})
		wantConflict(w, lock("l", "b", time.Hour))
		wantConflict(w, &db.LockRelease{UnlockRequest: db.UnlockRequest{Key: key("l"), Token: token + 1}})
		if n, err := w.d.Counter(key("c")); n != 5 || err != nil {
			t.Errorf("the counter is at %d (%v), want 5", n, err)
		}
		wantValue(t, w.d, "v", "first")
		if h, err := w.d.LockHolder(key("l")); h.Token != token || err != nil {
			t.Errorf("the lock has the holder %+v (%v), want the token %d", h, err, token)
		}
		w.restart()
	}
}

func group(ops ...db.Operation) *db.Batch { return &db.Batch{Ops: ops, Atomic: true} }

func TestGroupIsDoneOrNotDone(t *testing.T) {
	w := newWorld(t)
	set(w, "a", "old")
	refused := group(
		&db.ValueSet{Key: key("a"), Data: []byte("new"), Conditions: db.Conditions{Check: db.AnyVersion}},
		&db.SequenceAdd{Key: key("s"), N: 1},
		&db.CounterAdd{Key: key("c"), Add: -1, Min: 0, Max: 1},
	)
	wantConflict(w, refused)
	wantValue(t, w.d, "a", "old")
	if n := next(w, "s"); n != 1 {
		t.Errorf("the sequence goes on with %d after a group that was refused, want 1", n)
	}
	from := w.fs.Len()
	do(w, group(
		&db.ValueSet{Key: key("a"), Data: []byte("new"), Conditions: db.Conditions{Check: db.AnyVersion}},
		&db.ValueSet{Key: key("b"), Data: []byte("new"), Conditions: db.Conditions{Check: db.AnyVersion}},
	))
	for at := from; at <= w.fs.Len(); at++ {
		o := w.o
		o.FS = w.fs.Crash(at, w.rnd)
		d, err := db.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(key("b")); err == nil {
			wantValue(t, d, "a", "new")
		} else {
			wantValue(t, d, "a", "old")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsReadBeforeItIsDurable(t *testing.T) {
	w := newWorld(t)
	set(w, "v", "old")
	syncing, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync {
			once.Do(func() {
				close(syncing)
				<-goOn
			})
		}
		return nil
	})
	done := make(chan error)
	go func() {
		done <- w.d.Do(&db.ValueSet{Key: key("v"), Data: []byte("new"), Conditions: db.Conditions{Check: db.AnyVersion}})
	}()
	<-syncing
	wantValue(t, w.d, "v", "old")
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantValue(t, w.d, "v", "new")
}

func TestLockEndsInItsTimeAndNotBefore(t *testing.T) {
	w := newWorld(t)
	do(w, lock("l", "a", time.Minute))
	do(w, &db.ValueSet{Key: key("v"), Data: []byte("x"), TTL: time.Minute, Conditions: db.Conditions{Check: db.AnyVersion}})
	w.pass(59 * time.Second)
	w.powerCut()
	wantConflict(w, lock("l", "b", time.Minute))
	wantValue(t, w.d, "v", "x")
	w.pass(time.Second)
	do(w, lock("l", "b", time.Minute))
	wantValue(t, w.d, "v", "")
}

func TestWaitersAreServedInOrder(t *testing.T) {
	w := newWorld(t)
	token := do(w, lock("l", "first", time.Hour)).Holder.Token
	const waiters = 5
	served := make(chan string, waiters)
	for i := range waiters {
		take := lock("l", fmt.Sprint("waiter ", i), time.Hour)
		take.Wait = time.Hour
		call := &db.Call{Op: take, Done: func(c *db.Call) {
			served <- fmt.Sprint(c.Op.(*db.LockTake).Holder.Owner, " ", c.Err)
		}}
		if err := w.d.Submit(call); err != nil {
			t.Fatal(err)
		}
	}
	for i := range waiters {
		do(w, &db.LockRelease{UnlockRequest: db.UnlockRequest{Key: key("l"), Token: token}})
		if got, want := <-served, fmt.Sprintf("waiter %d <nil>", i); got != want {
			t.Fatalf("%q was served, want %q", got, want)
		}
		h, err := w.d.LockHolder(key("l"))
		if err != nil || h.Token <= token {
			t.Fatalf("the holder is %+v (%v), the token before was %d", h, err, token)
		}
		token = h.Token
	}
}

func TestFullDiskRefusesWritesAndServesTheRest(t *testing.T) {
	w := newWorld(t)
	number := next(w, "s")
	var kept []string
	var err error
	for i := 0; err == nil; i++ {
		if i == 4 {
			w.fs.SetRoom(w.fs.Used())
		}
		id := fmt.Sprint("v", i)
		err = w.d.Do(&db.ValueSet{Key: key(id), Data: make([]byte, 8<<10), Conditions: db.Conditions{Check: db.AnyVersion}})
		if err == nil {
			kept = append(kept, id)
		}
	}
	if !errors.Is(err, db.ErrFull) {
		t.Fatalf("on a full disk: %v, want ErrFull", err)
	}
	for _, id := range kept {
		wantValue(t, w.d, id, string(make([]byte, 8<<10)))
	}
	do(w, &db.ValueDelete{Key: key(kept[0]), Conditions: db.Conditions{Check: db.AnyVersion}})
	w.fs.SetRoom(-1)
	if n := next(w, "s"); n != number+1 {
		t.Errorf("the sequence goes on with %d, want %d", n, number+1)
	}
	set(w, "more", "room")
	w.restart()
	wantValue(t, w.d, kept[0], "")
	wantValue(t, w.d, "more", "room")
}

func TestFailedSyncStopsWritesAndLosesNothingThatWasAnswered(t *testing.T) {
	w := newWorld(t)
	set(w, "v", "answered")
	w.fs.Fail(func(op memdisk.Op) error {
		// Any other file may be synced first, in the background.
		if op.Kind == memdisk.Sync && strings.HasSuffix(op.Name, "1.seg") {
			return errors.New("the disk is broken")
		}
		return nil
	})
	if err := w.d.Do(&db.SequenceAdd{Key: key("s"), N: 1}); !errors.Is(err, db.ErrUnknown) {
		t.Errorf("during the failure: %v, want ErrUnknown", err)
	}
	<-w.d.Failed()
	if err := w.d.Do(&db.SequenceAdd{Key: key("s"), N: 1}); !errors.Is(err, db.ErrStopped) {
		t.Errorf("after the failure: %v, want ErrStopped", err)
	}
	wantValue(t, w.d, "v", "answered")
	if err := w.d.Close(); err == nil {
		t.Error("a close after a failure says nothing of it")
	}
	w.open(w.fs.Crash(w.fs.Len(), w.rnd))
	wantValue(t, w.d, "v", "answered")
	if n := next(w, "s"); n != 1 && n != 2 {
		t.Errorf("the sequence goes on with %d, want 1 or 2", n)
	}
}

func TestConcurrentCallersLoseNothing(t *testing.T) {
	w := newWorld(t)
	const callers, calls = 8, 50
	var wg sync.WaitGroup
	numbers := make([][]int64, callers)
	for i := range callers {
		wg.Go(func() {
			for range calls {
				op := db.SequenceAdd{Key: key("s"), N: 1}
				if err := w.d.Do(&op); err != nil {
					t.Error(err)
				}
				numbers[i] = append(numbers[i], op.Value)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(numbers...)
	slices.Sort(all)
	for i, n := range all {
		if n != int64(i+1) {
			t.Fatalf("the %d-th number is %d", i+1, n)
		}
	}
	w.powerCut()
	if n := next(w, "s"); n != callers*calls+1 {
		t.Errorf("the sequence goes on with %d, want %d", n, callers*calls+1)
	}
}

func TestDrainAnswersWaitersAndCloseRefuses(t *testing.T) {
	w := newWorld(t)
	do(w, lock("l", "a", time.Hour))
	answered := make(chan error, 1)
	take := lock("l", "b", time.Hour)
	take.Wait = time.Hour
	if err := w.d.Submit(&db.Call{Op: take, Done: func(c *db.Call) { answered <- c.Err }}); err != nil {
		t.Fatal(err)
	}
	w.d.Drain()
	if err := <-answered; !errors.Is(err, db.ErrStopping) {
		t.Errorf("a waiter gets %v from Drain, want ErrStopping", err)
	}
	next(w, "s")
	d := w.d
	w.close()
	if err := d.Do(&db.SequenceAdd{Key: key("s"), N: 1}); !errors.Is(err, db.ErrStopping) {
		t.Errorf("after Close: %v, want ErrStopping", err)
	}
	w.open(w.fs)
	if h, err := w.d.LockHolder(key("l")); h.Owner != "a" || err != nil {
		t.Errorf("after a restart the holder is %+v (%v), want a", h, err)
	}
}

func TestDamageIsRefusedByName(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		next(w, "s")
		set(w, "v", "value")
	}
	w.close()
	fs := w.fs.Clone()
	const name = "data/log/00000001.seg"
	b, err := fs.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[4096+100] ^= 1
	if err := fs.WriteFile(name, b); err != nil {
		t.Fatal(err)
	}
	found := 0
	if _, err := db.Verify(fs, "data", func(*disk.Damage) { found++ }, nil); err != nil || found == 0 {
		t.Errorf("Verify finds %d damages (%v)", found, err)
	}
}

func TestMutexesAreForgottenAndTheirTokensAreNot(t *testing.T) {
	w := newWorld(t)
	take := func() int64 {
		t.Helper()
		token, err := w.d.LockMutex(context.Background(), db.LockRequest{Key: key("m"), Dur: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	first := take()
	w.powerCut()
	if second := take(); second <= first {
		t.Errorf("after the token %d comes %d", first, second)
	}
}
