package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/internal/lease"
)

var gate = Key{"acc", "gate"}

func testMutexes(waiters int) *Mutexes {
	var last atomic.Int64
	return newMutexes(mutexOptions{
		Clock: bubbleClock(),
		Token: func(string) (int64, error) { return last.Add(1), nil },
		Limit: lease.NewLimit(waiters), Observer: noObserver{},
	})
}

// waiting is a call of Lock in a goroutine of its own.
type waiting struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	token  int64 // good once done
	err    error
	took   time.Duration
}

// lockLater starts a Lock in a bubble and returns once it waits.
func lockLater(m *Mutexes, r LockRequest) *waiting {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &waiting{cancel: cancel, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(w.done)
		w.token, w.err = m.Lock(ctx, r)
		w.took = time.Since(began)
	}()
	synctest.Wait()
	return w
}

func (w *waiting) want(t *testing.T, token int64, took time.Duration) {
	t.Helper()
	<-w.done
	if w.err != nil || w.token != token || w.took != took {
		t.Fatalf("got token %d, %v after %v, want token %d after %v", w.token, w.err, w.took, token, took)
	}
}

func mustLock(t *testing.T, m *Mutexes, r LockRequest) int64 {
	t.Helper()
	token, err := m.Lock(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func mustUnlock(t *testing.T, m *Mutexes, r UnlockRequest) {
	t.Helper()
	if err := m.Unlock(r); err != nil {
		t.Fatal(err)
	}
}

func wantHeld(t *testing.T, err error, reason string, h Holder) {
	t.Helper()
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a HeldError", err)
	}
	if held.Reason != reason || held.Holder != h {
		t.Fatalf("got  %q %+v\nwant %q %+v", held.Reason, held.Holder, reason, h)
	}
}

func wantNoneLeft(t *testing.T, m *Mutexes) {
	t.Helper()
	if s := m.Stats(); s.Held != 0 || s.Waiting != 0 || m.o.Limit.Waiting() != 0 {
		t.Fatalf("left: %+v, %d counted as waiting", s, m.o.Limit.Waiting())
	}
}

func TestMutexRefusalNamesTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		token := mustLock(t, m, LockRequest{Key: gate, Owner: "ann", Dur: 10 * time.Second})
		holder := Holder{Owner: "ann", Token: token, TTL: 10 * time.Second, Expires: time.Unix(0, time.Now().Add(10*time.Second).UnixNano())}

		not, err := m.Lock(t.Context(), LockRequest{Key: gate, Owner: "bob", Dur: time.Second})
		if not != 0 {
			t.Errorf("a refusal came with the token %d", not)
		}
		wantHeld(t, err, `mutex "gate" is held; the holder is "ann"`, holder)
		_, err = m.Lock(t.Context(), LockRequest{Key: gate, Token: token + 1, Dur: time.Second})
		wantHeld(t, err, fmt.Sprintf(`token %d does not hold mutex "gate": nothing was renewed; the holder is "ann"`, token+1), holder)
		err = m.Unlock(UnlockRequest{Key: gate, Owner: "bob"})
		wantHeld(t, err, `mutex "gate" is held, but not by id="bob"; the holder is "ann"`, holder)
		_, err = m.Lock(t.Context(), LockRequest{Key: Key{"acc", "free"}, Token: 7, Dur: time.Second})
		wantHeld(t, err, `token 7 does not hold mutex "free": nothing was renewed`, Holder{})
		if s := m.Stats(); s.Held != 1 {
			t.Fatalf("a refusal changed something: %+v", s)
		}
	})
}

func TestMutexEndsAndWaitsEndOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		mustLock(t, m, LockRequest{Key: gate, Dur: 500 * time.Millisecond})
		late := lockLater(m, LockRequest{Key: gate, Dur: time.Second, Wait: 499 * time.Millisecond})
		first := lockLater(m, LockRequest{Key: gate, Owner: "bob", Dur: 2 * time.Second, Wait: 500 * time.Millisecond})
		second := lockLater(m, LockRequest{Key: gate, Dur: time.Second, Wait: time.Hour})
		<-late.done
		wantHeld(t, late.err, `mutex "gate" is still held after the wait`,
			Holder{Token: 1, TTL: time.Millisecond, Expires: time.Unix(0, time.Now().Add(time.Millisecond).UnixNano()), Waiters: 2})
		if late.took != 499*time.Millisecond {
			t.Fatalf("refused after %v", late.took)
		}
		first.want(t, 2, 500*time.Millisecond)
		if token := mustLock(t, m, LockRequest{Key: gate, Owner: "bob", Dur: 3 * time.Second}); token != 2 {
			t.Fatalf("renewed with token %d, want 2", token)
		}
		second.want(t, 3, 3500*time.Millisecond)
		mustUnlock(t, m, UnlockRequest{Key: gate, Token: 3})
		if s := m.Stats(); s.Expired != 2 {
			t.Fatalf("%d expired, want 2", s.Expired)
		}
		wantNoneLeft(t, m)
	})
}

// Nobody else asks for the second mutex. The timer is still set to the end of the first hold,
// which was released.
func TestTimerIsSetAgainAfterASpuriousWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		mustLock(t, m, LockRequest{Key: gate, Dur: time.Second})
		mustUnlock(t, m, UnlockRequest{Key: gate})
		mustLock(t, m, LockRequest{Key: gate, Dur: 5 * time.Second})
		w := lockLater(m, LockRequest{Key: gate, Dur: time.Second, Wait: 10 * time.Second})
		w.want(t, 3, 5*time.Second)
	})
}

func TestMutexWaitersAreServedInOrderWithoutPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		m := testMutexes(n)
		mustLock(t, m, LockRequest{Key: gate, Dur: time.Hour})
		var order []int // guarded by the mutex under test
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				token, err := m.Lock(context.Background(), LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
				if err != nil || token != int64(i)+2 {
					t.Errorf("waiter %d: token %d, %v", i, token, err)
				}
				order = append(order, i)
				if err := m.Unlock(UnlockRequest{Key: gate, Token: token}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if _, err := m.Lock(t.Context(), LockRequest{Key: gate, Dur: time.Second, Wait: time.Second}); err != ErrWaiters {
			t.Fatalf("one waiter too many: got %v, want ErrWaiters", err)
		}
		mustUnlock(t, m, UnlockRequest{Key: gate, Token: 1})
		wg.Wait()
		if len(order) != n || !slices.IsSorted(order) {
			t.Fatalf("%d were served, in order: %t", len(order), slices.IsSorted(order))
		}
		wantNoneLeft(t, m)
	})
}

func TestMutexWithoutATokenIsNotGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last int64
		var fail error
		m := newMutexes(mutexOptions{
			Clock: bubbleClock(),
			Token: func(string) (int64, error) {
				if fail != nil {
					err := fail
					fail = nil
					return 0, err
				}
				last++
				return last, nil
			},
			Limit: lease.NewLimit(10), Observer: noObserver{},
		})
		fail = ErrFull
		if token, err := m.Lock(t.Context(), LockRequest{Key: gate, Dur: time.Hour}); err != ErrFull || token != 0 {
			t.Fatalf("got %d, %v, want ErrFull", token, err)
		}
		wantNoneLeft(t, m)
		mustLock(t, m, LockRequest{Key: gate, Dur: time.Hour})
		unlucky := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
		next := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
		fail = ErrStopped
		mustUnlock(t, m, UnlockRequest{Key: gate})
		<-unlucky.done
		if unlucky.err != ErrStopped || unlucky.token != 0 {
			t.Fatalf("got %d, %v, want ErrStopped", unlucky.token, unlucky.err)
		}
		next.want(t, 2, 0)
	})
}

func TestDrainedMutexesAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(100)
		var all []*waiting
		for i := range 20 {
			k := Key{"acc", fmt.Sprint(i % 10)}
			mustLock(t, m, LockRequest{Key: k, Owner: "ann", Dur: time.Hour})
			all = append(all, lockLater(m, LockRequest{Key: k, Dur: time.Hour, Wait: time.Minute}))
		}
		m.Drain()
		for _, w := range all {
			<-w.done
			if w.err != ErrStopping || w.took != 0 {
				t.Fatalf("got %v after %v, want ErrStopping at once", w.err, w.took)
			}
		}
		k := Key{"acc", "0"}
		if _, err := m.Lock(t.Context(), LockRequest{Key: k, Dur: time.Hour, Wait: time.Minute}); err != ErrStopping {
			t.Fatalf("a later wait: got %v, want ErrStopping", err)
		}
		var held *HeldError
		if _, err := m.Lock(t.Context(), LockRequest{Key: k, Dur: time.Hour}); !errors.As(err, &held) {
			t.Fatalf("without a wait: got %v, want a HeldError", err)
		}
		mustUnlock(t, m, UnlockRequest{Key: k, Owner: "ann"})
		mustLock(t, m, LockRequest{Key: k, Dur: time.Hour, Wait: time.Minute})
		<-time.After(time.Hour)
		mustLock(t, m, LockRequest{Key: k, Dur: time.Hour})
	})
}

func TestMutexHooksMeasureWaitsAndHandOvers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(watcher)
		var last int64
		m := newMutexes(mutexOptions{
			Clock:    bubbleClock(),
			Token:    func(string) (int64, error) { last++; return last, nil },
			Limit:    lease.NewLimit(10),
			Observer: w,
		})
		mustLock(t, m, LockRequest{Key: gate, Dur: 3 * time.Second, Wait: time.Second})
		timedOut := lockLater(m, LockRequest{Key: gate, Dur: time.Second, Wait: time.Second})
		granted := lockLater(m, LockRequest{Key: gate, Dur: time.Second, Wait: 5 * time.Second})
		<-timedOut.done
		granted.want(t, 2, 3*time.Second)
		if want := []time.Duration{time.Second, 3 * time.Second}; !slices.Equal(w.waits, want) {
			t.Errorf("waits %v, want %v", w.waits, want)
		}
		if want := []time.Duration{0}; !slices.Equal(w.handOvers, want) {
			t.Errorf("hand-overs %v, want %v", w.handOvers, want)
		}
	})
}

func TestUncontendedMutexCostsNoAllocationAndNoTimer(t *testing.T) {
	m := testMutexes(10)
	ctx := t.Context()
	s := m.shard(gate)
	isArmed := func() int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.armed
	}
	var armed int64
	lockAndUnlock := func() {
		if _, err := m.Lock(ctx, LockRequest{Key: gate, Owner: "ann", Dur: time.Hour, Wait: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if armed == 0 {
			armed = isArmed()
		}
		if err := m.Unlock(UnlockRequest{Key: gate, Owner: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(200, lockAndUnlock); n >= 1 {
		t.Errorf("%v allocations, want less than one", n)
	}
	if later := isArmed() - armed; later != 0 {
		t.Errorf("the timer was set %v later", time.Duration(later))
	}
}

func TestMutexesSpreadOverTheShards(t *testing.T) {
	m := testMutexes(0)
	used := map[*mutexShard]bool{}
	for i := range 5000 {
		used[m.shard(Key{"acc", fmt.Sprint(i)})] = true
	}
	if len(used) != mutexShards {
		t.Fatalf("5000 names use %d of %d shards", len(used), mutexShards)
	}
}

func BenchmarkMutexUncontended(b *testing.B) {
	m := testMutexes(10)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		token, err := m.Lock(ctx, LockRequest{Key: gate, Dur: time.Minute, Wait: time.Minute})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Unlock(UnlockRequest{Key: gate, Token: token}); err != nil {
			b.Fatal(err)
		}
	}
}

// Two callers who pass one mutex to each other.
func BenchmarkMutexHandOver(b *testing.B) {
	m := testMutexes(10)
	b.ReportAllocs()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range b.N {
				token, err := m.Lock(context.Background(), LockRequest{Key: gate, Dur: time.Minute, Wait: time.Minute})
				if err == nil {
					err = m.Unlock(UnlockRequest{Key: gate, Token: token})
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
