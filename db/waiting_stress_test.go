package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// loopCall is a call as an event loop makes it: wake has to be called exactly once for each wait.
type loopCall struct {
	t     *testing.T
	woken chan struct{} // has room for one token
	left  atomic.Bool
}

func newLoopCall(t *testing.T) *loopCall { return &loopCall{t: t, woken: make(chan struct{}, 1)} }

func (c *loopCall) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
		c.t.Error("a call was woken twice")
	}
}

func (c *loopCall) gone() error {
	if c.left.Load() {
		return context.Canceled
	}
	return nil
}

// wait waits until the call is woken. Sometimes its client hangs up at a random moment before.
func (c *loopCall) wait(leave func()) {
	if c.left.Load() || rand.IntN(3) > 0 {
		<-c.woken
		return
	}
	select {
	case <-c.woken:
	case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
		c.left.Store(true)
		leave()
		<-c.woken
	}
}

// TestWaitsThatEndAtRandom has calls wait that are granted, time out, leave, move away and are
// drained at random moments. No lock may have two holders, and nothing may be left.
func TestWaitsThatEndAtRandom(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Watchers, o.Waiters, o.Clock = 1000, 1000, nil
	d := mustOpen(t, o)
	t.Cleanup(func() { mustClose(t, d) })
	s := &waitStress{t: t, d: d}
	const callers, rounds = 16, 150
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range rounds {
				s.once()
			}
		})
	}
	stop, moved := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(moved)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
			}
			if _, err := d.Freeze("moves", "there"); err != nil {
				t.Error(err)
			}
			if err := d.Unfreeze("moves"); err != nil {
				t.Error(err)
			}
		}
	}()
	all.Wait()
	close(stop)
	<-moved
	for _, acc := range []string{"moves", "stays"} {
		for i := range stressKeys {
			k := Key{acc, fmt.Sprint(i)}
			// What is given back to a caller that has left is not waited for.
			for began := time.Now(); ; runtime.Gosched() {
				read := LockRead{Key: k}
				if d.Do(&read) == ErrNotFound {
					break
				}
				if time.Since(began) > 20*time.Second {
					t.Fatalf("lock %v is still held: %+v", k, read.Holders)
				}
			}
			if all, err := d.MutexHolders(k, 0); err != ErrNotFound {
				t.Errorf("mutex %v is still held: %+v, %v", k, all, err)
			}
		}
	}
	st := d.Stats()
	if n := st.Locks.Waiting + st.Mutexes.Waiting + st.RateWaiters; n != 0 {
		t.Errorf("%d calls are still in queues", n)
	}
	checkNobodyWatches(t, d)
}

const stressKeys = 2

type waitStress struct {
	t    *testing.T
	d    *DB
	held [2][2][stressKeys]atomic.Int32 // callers that were told that they hold a lock or a mutex
}

// once makes one call.
func (s *waitStress) once() {
	acc, i := rand.IntN(2), rand.IntN(stressKeys)
	k := Key{[]string{"moves", "stays"}[acc], fmt.Sprint(i)}
	wait := time.Duration(rand.IntN(3000)) * time.Microsecond
	switch rand.IntN(4) {
	case 0:
		s.lock(&s.held[0][acc][i], LockRequest{Key: k, Dur: time.Hour, Wait: wait})
	case 1:
		s.mutex(&s.held[1][acc][i], LockRequest{Key: k, Dur: time.Hour, Wait: wait})
	case 2:
		s.rate(RateRequest{Key: k, Rate: Rate{Limit: 1000, Per: time.Second, Burst: 1}, Cost: 1, Wait: wait})
	case 3:
		what := []Watched{WatchedSequence, WatchedLock, WatchedMutex, WatchedValue}[rand.IntN(4)]
		s.watch(what, k, Not{None: true}, wait)
		if _, err := s.d.AddSequence(k, 1); err == nil && rand.IntN(2) == 0 {
			err = s.d.ResetSequence(k)
			s.check(err)
		}
	}
}

// check reports an error that none of the calls should get.
func (s *waitStress) check(err error) {
	var held *HeldError
	var rate *RateError
	var moving *MovingError
	switch {
	case err == nil, err == ErrNotFound, err == ErrUnchanged, errors.Is(err, context.Canceled):
	case errors.As(err, &held), errors.As(err, &rate), errors.As(err, &moving):
	default:
		s.t.Error(err)
	}
}

// hold checks that nobody else holds what the caller was told that it holds.
func (s *waitStress) hold(h *atomic.Int32) {
	if h.Add(1) != 1 {
		s.t.Error("a lock has two holders")
	}
	runtime.Gosched()
	h.Add(-1)
}

// do submits an operation that may wait, as a loop does.
func (s *waitStress) do(o Waiting) error {
	c := newLoopCall(s.t)
	call := &Call{Op: o, Done: func(*Call) { c.wake() }}
	s.d.SubmitAll(rand.IntN(2) == 0, []*Call{call})
	c.wait(func() { s.d.Leave(o, context.Canceled) })
	err := s.d.Answered(o, call.Err, c.gone)
	s.check(err)
	return err
}

func (s *waitStress) lock(h *atomic.Int32, r LockRequest) {
	take := &LockTake{LockRequest: r}
	if s.do(take) != nil {
		return
	}
	s.hold(h)
	s.check(s.unlockAnyway(func() error { return s.d.Unlock(UnlockRequest{Key: r.Key, Token: take.Holder.Token}) }))
}

// unlockAnyway unlocks also while the account is frozen, once it is not any more.
func (s *waitStress) unlockAnyway(unlock func() error) error {
	for {
		err := unlock()
		if moving := (*MovingError)(nil); !errors.As(err, &moving) {
			return err
		}
		runtime.Gosched()
	}
}

func (s *waitStress) mutex(h *atomic.Int32, r LockRequest) {
	c := newLoopCall(s.t)
	w, token, err := s.d.BeginMutex(r, c.wake)
	if w != nil {
		c.wait(func() { w.Leave(context.Canceled) })
		token, err = w.End(c.gone)
	}
	if s.check(err); err != nil {
		return
	}
	if r.Key.Acc == "stays" { // the mutexes of an account that moves are freed
		s.hold(h)
	}
	s.check(s.unlockAnyway(func() error { return s.d.UnlockMutex(UnlockRequest{Key: r.Key, Token: token}) }))
}

func (s *waitStress) rate(r RateRequest) { _ = s.do(&RateTake{RateRequest: r}) }

func (s *waitStress) watch(what Watched, k Key, not Not, wait time.Duration) {
	c := newLoopCall(s.t)
	w, err := s.d.BeginWatch(what, k, not, wait, c.wake)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer w.End()
	for {
		over, err := w.Look(s.t.Context())
		if over {
			s.check(err)
			return
		}
		if c.wait(w.Leave); c.gone() != nil {
			return
		}
	}
}
