package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMutexHangUpLeavesTheQueueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		mustLock(t, m, LockRequest{Key: gate, Dur: time.Hour})
		gone := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
		next := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
		why := errors.New("hung up")
		gone.cancel(why)
		<-gone.done
		if gone.err != why || gone.took != 0 {
			t.Fatalf("got %v after %v, want the cause at once", gone.err, gone.took)
		}
		if s := m.Stats(); s.Waiting != 1 {
			t.Fatalf("%d wait, want 1", s.Waiting)
		}
		mustUnlock(t, m, UnlockRequest{Key: gate})
		next.want(t, 2, 0)
		for _, c := range []struct {
			ctx  context.Context
			want error
		}{{endedContext(why), why}, {hungUp{context.Background()}, context.Canceled}} {
			if _, err := m.Lock(c.ctx, LockRequest{Key: Key{"acc", "free"}, Dur: time.Hour, Wait: time.Minute}); err != c.want {
				t.Fatalf("a caller that was gone before it asked got %v", err)
			}
		}
		if s := m.Stats(); s.Held != 1 {
			t.Fatalf("%d held, want 1", s.Held)
		}
		// A caller that does not want to wait may have closed its own side only, and is answered.
		if _, err := m.Lock(endedContext(why), LockRequest{Key: Key{"acc", "free"}, Dur: time.Hour}); err != nil {
			t.Fatalf("a caller that does not wait got %v", err)
		}
	})
}

// endedContext returns a context that has ended.
func endedContext(why error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	return ctx
}

// hangUp is a context that ends while its caller is being granted the mutex.
type hangUp struct {
	context.Context
	granting func() // called when the caller is in the queue
	ended    chan struct{}
}

func (h *hangUp) Done() <-chan struct{} {
	h.granting()
	close(h.ended)
	return h.ended
}

func (h *hangUp) Err() error {
	select {
	case <-h.ended:
		return context.Canceled
	default:
		return nil
	}
}

func TestMutexGrantedWhileItsCallerHangsUpGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The grant and the hang-up have both happened when the caller looks. select chooses
		// at random which of them it sees first.
		for range 50 {
			m := testMutexes(10)
			mustLock(t, m, LockRequest{Key: gate, Owner: "ann", Dur: time.Hour})
			var next *waiting
			ctx := &hangUp{Context: context.Background(), ended: make(chan struct{})}
			ctx.granting = func() {
				next = lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
				mustUnlock(t, m, UnlockRequest{Key: gate, Owner: "ann"})
			}
			if _, err := m.Lock(ctx, LockRequest{Key: gate, Owner: "bob", Dur: time.Hour, Wait: time.Minute}); err != context.Canceled {
				t.Fatalf("got %v", err)
			}
			next.want(t, 3, 0)
			mustUnlock(t, m, UnlockRequest{Key: gate})
			wantNoneLeft(t, m)
		}
	})
}

// goneLater is the context of a caller whose connection is closed at some time.
type goneLater struct {
	context.Context
	gone atomic.Bool
}

func (g *goneLater) Gone() bool { return g.gone.Load() }

// The client of the first request lost its connection and asked again with its id.
func TestMutexIsNotGrantedToAnUnnoticedHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		mustLock(t, m, LockRequest{Key: gate, Owner: "ann", Dur: time.Hour})
		got := make(chan error, 1)
		ctx := &goneLater{Context: context.Background()}
		go func() {
			_, err := m.Lock(ctx, LockRequest{Key: gate, Owner: "bob", Dur: time.Minute, Wait: time.Minute})
			got <- err
		}()
		synctest.Wait()
		ctx.gone.Store(true)
		next := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Hour})
		mustUnlock(t, m, UnlockRequest{Key: gate, Owner: "ann"})
		if err := <-got; err != context.Canceled {
			t.Errorf("who hung up got %v", err)
		}
		next.want(t, 3, 0)
	})
}

func TestMutexRenewedWhileItsFirstCallerHangsUpIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			m := testMutexes(10)
			mustLock(t, m, LockRequest{Key: gate, Owner: "ann", Dur: time.Hour})
			ask := LockRequest{Key: gate, Owner: "bob", Dur: time.Hour, Wait: time.Minute}
			ctx := &hangUp{Context: context.Background(), ended: make(chan struct{})}
			ctx.granting = func() {
				mustUnlock(t, m, UnlockRequest{Key: gate, Owner: "ann"})
				if token := mustLock(t, m, ask); token != 2 {
					t.Fatalf("token %d, want 2", token)
				}
			}
			if _, err := m.Lock(ctx, ask); err != context.Canceled {
				t.Fatalf("got %v", err)
			}
			if _, err := m.Lock(t.Context(), LockRequest{Key: gate, Token: 2, Dur: time.Hour}); err != nil {
				t.Fatalf("the second request was told that it holds the mutex: %v", err)
			}
		}
	})
}

// Callers of all kinds run at once, and some hang up at any moment. There is one holder at a
// time, tokens grow, and nothing is left at the end.
func TestMutexHasOneHolderAtATime(t *testing.T) {
	m := testMutexes(1000)
	type room struct {
		inside atomic.Int32
		last   int64 // token, guarded by the mutex under test
	}
	var rooms [5]room
	var wg sync.WaitGroup
	var entered atomic.Int32
	for g := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for range 300 {
				i := rnd.IntN(len(rooms))
				r := LockRequest{Key: Key{"acc", fmt.Sprint(i)}, Dur: time.Hour, Wait: time.Hour}
				if rnd.IntN(2) == 0 {
					r.Owner = fmt.Sprint("owner", g)
				}
				ctx, cancel := context.WithCancel(context.Background())
				if rnd.IntN(3) == 0 {
					go cancel()
				}
				token, err := m.Lock(ctx, r)
				if err == nil {
					entered.Add(1)
					if n := rooms[i].inside.Add(1); n != 1 {
						t.Errorf("%d hold mutex %d", n, i)
					}
					if token <= rooms[i].last {
						t.Errorf("mutex %d: token %d after %d", i, token, rooms[i].last)
					}
					rooms[i].last = token
					rooms[i].inside.Add(-1)
					if err := m.Unlock(UnlockRequest{Key: r.Key, Token: token}); err != nil {
						t.Error(err)
					}
				} else if err != context.Canceled {
					t.Errorf("got %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := entered.Load(); n < 16*300/2 {
		t.Errorf("only %d entered", n)
	}
	wantNoneLeft(t, m)
}
