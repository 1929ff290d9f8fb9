package db

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"sync"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// Mutexes are locks in memory. Any goroutine may call its methods.
//
// A mutex belongs to one of many shards, so unrelated mutexes rarely contend. Each shard has
// a lock, a lease table, and one timer for the next end of a hold or a wait. The timer is
// set again only for an earlier end, so locking and unlocking a mutex seldom touches it.
type Mutexes struct {
	o      mutexOptions
	seed   maphash.Seed
	calls  sync.Pool // of *MutexWait, none of them in a queue
	shards [mutexShards]mutexShard
}

const mutexShards = 64

// mutexOptions are the dependencies of the mutexes.
type mutexOptions struct {
	Clock Clock
	// Token returns the next fencing token, for a mutex of the account. It is called with a
	// shard locked, so it should rarely wait. If it fails, the caller that would have been
	// granted the mutex gets the error, and the next one is granted it.
	Token func(acc string) (int64, error)
	Limit *lease.Limit // of callers that wait
	// Changed, if not nil, is called with a shard locked when the holders of a mutex have
	// changed.
	Changed  func(lease.Key)
	Observer Observer
	Audit    *slog.Logger // nil: none
}

type mutexShard struct {
	o *mutexOptions

	mu       sync.Mutex // guards what follows
	table    *lease.Table
	timer    *time.Timer
	armed    int64 // what the timer is set to; math.MaxInt64: nothing
	draining bool
}

// MutexWait is a caller that waits for a mutex.
type MutexWait struct {
	waiter lease.Waiter
	of     *Mutexes
	shard  *mutexShard
	key    lease.Key
	asked  int64
	wake   func()
	answer mutexAnswer // good once wake was called

	woken chan struct{} // has room for one token; used by Lock
	tell  func()        // puts it there
}

type mutexAnswer struct {
	token int64
	err   error
	at    int64 // when it was given
}

func newMutexes(o mutexOptions) *Mutexes {
	m := &Mutexes{o: o, seed: maphash.MakeSeed()}
	m.calls.New = m.newWait
	for i := range m.shards {
		s := &m.shards[i]
		s.o = &m.o
		s.armed = math.MaxInt64
		s.table = lease.New(func(k lease.Key, _ bool) (int64, error) { return o.Token(k.Acc) }, o.Limit)
		s.timer = time.AfterFunc(math.MaxInt64, s.ring)
		s.timer.Stop()
	}
	return m
}

func (m *Mutexes) shard(k Key) *mutexShard {
	return &m.shards[maphash.Comparable(m.seed, k)%mutexShards]
}

// Lock takes or renews a mutex and returns its token. With a wait it queues. If ctx ends,
// the caller leaves the queue or gives a grant back, and gets the cause. So does a caller with a
// wait that has left before. It returns a *HeldError if another caller holds the mutex, also after
// the wait, or if the token to renew is not the holder's. It returns ErrWaiters or ErrStopping if
// the call cannot queue.
func (m *Mutexes) Lock(ctx context.Context, r LockRequest) (token int64, err error) {
	if r.Wait > 0 {
		if err := gone(ctx); err != nil {
			return 0, err
		}
	}
	w := m.calls.Get().(*MutexWait)
	queued, token, err := m.begin(r, w, w.tell)
	if !queued {
		return token, err
	}
	select {
	case <-w.woken:
	case <-ctx.Done():
		w.Leave(context.Cause(ctx))
		<-w.woken
	}
	return w.End(func() error { return gone(ctx) })
}

// Begin is like Lock, but does not wait. If the call queues, Begin returns its MutexWait, and
// wake is called once when the wait is over. It may be called with a shard locked, and must not
// block. Then the caller has to call End.
func (m *Mutexes) Begin(r LockRequest, wake func()) (w *MutexWait, token int64, err error) {
	w = m.calls.Get().(*MutexWait)
	queued, token, err := m.begin(r, w, wake)
	if !queued {
		return nil, token, err
	}
	return w, 0, nil
}

// begin is Begin with a MutexWait from the pool. It puts it back unless the call queues.
func (m *Mutexes) begin(r LockRequest, w *MutexWait, wake func()) (queued bool, token int64, err error) {
	w.shard, w.key, w.wake = m.shard(r.Key), lease.Key(r.Key), wake
	a, queued := w.shard.acquire(r, w)
	if queued {
		return true, 0, nil
	}
	m.calls.Put(w)
	return false, a.token, a.err
}

func (m *Mutexes) newWait() any {
	w := &MutexWait{of: m, woken: make(chan struct{}, 1)}
	w.tell = func() { w.woken <- struct{}{} }
	w.waiter.Data = w
	return w
}

// Leave ends the wait with the error why, unless the call was answered before. It grants the
// mutex to those whom the call held up.
func (w *MutexWait) Leave(why error) {
	s := w.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.o.Clock()
	if !s.table.Cancel(now, &w.waiter) {
		return
	}
	s.expire(now, wall)
	s.arm(now)
	answer(&w.waiter, mutexAnswer{err: why, at: now})
}

// End returns the answer, after wake was called. If gone returns an error because the caller has
// left, it gives a grant back and returns that error. The MutexWait must not be used any more.
func (w *MutexWait) End(gone func() error) (token int64, err error) {
	m, a, asked := w.of, w.answer, w.asked
	if a.err == nil {
		if a.err = gone(); a.err != nil {
			w.shard.giveBack(w.key, a.token)
		}
	}
	w.wake, w.answer = nil, mutexAnswer{}
	m.calls.Put(w)
	now, _ := m.o.Clock()
	m.o.Observer.Waited(MutexInMemory, time.Duration(now-asked))
	if a.err != nil {
		return 0, a.err
	}
	m.o.Observer.HandedOver(MutexInMemory, time.Duration(now-a.at))
	return a.token, nil
}

// Unlock ends a hold of a mutex, or all holds with Force, and grants it to the next
// waiters. A free mutex, or a hold that was given back before and rests, is not an error. It
// returns a *HeldError if another caller holds the mutex.
func (m *Mutexes) Unlock(r UnlockRequest) error {
	s := m.shard(r.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	k := lease.Key(r.Key)
	res := s.table.Release(now, k, r.Owner, r.Token, r.Force)
	s.tell(now, wall, res.Events)
	if res.Outcome == lease.NotHolder || res.Outcome == lease.Several {
		return s.held(now, wall, k, notReleased(res.Outcome, "mutex", &r))
	}
	return nil
}

// Holders returns who holds a mutex and who waits for it, or ErrNotFound if it is
// free. With a token that is not 0 it returns only the holder that has it, or a
// *HeldError.
func (m *Mutexes) Holders(k Key, token int64) (Holders, error) {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	return listHolders(s.table, now, func(at int64) int64 { return wall + at - now }, "mutex", k, token)
}

// Drain answers all calls that wait for a mutex with ErrStopping, and later ones too. Other
// calls go on.
func (m *Mutexes) Drain() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, _ := s.begin()
		s.draining = true
		s.table.Drain(nil, func(_ lease.Key, w *lease.Waiter) { answer(w, mutexAnswer{err: ErrStopping, at: now}) })
		s.mu.Unlock()
	}
}

// Stats returns the counts of all mutexes together.
func (m *Mutexes) Stats() lease.Stats {
	var sum lease.Stats
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		st := s.table.Stats()
		s.mu.Unlock()
		sum.Add(st)
	}
	return sum
}

// acquire answers at once or queues w.
func (s *mutexShard) acquire(r LockRequest, w *MutexWait) (a mutexAnswer, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	q := leaseRequest(&r)
	if s.draining {
		q.Wait = 0
	}
	k := lease.Key(r.Key)
	res := s.table.Acquire(now, k, q, &w.waiter)
	s.tell(now, wall, res.Events)
	switch res.Outcome {
	case lease.Granted, lease.Renewed:
		a.token = res.Holder.Token
	case lease.NoToken:
		a.err = res.Err
	case lease.Queued:
		w.asked = now
		return a, true
	case lease.Crowded:
		a.err = ErrWaiters
	case lease.Held:
		if s.draining && r.Wait > 0 {
			a.err = ErrStopping
			break
		}
		fallthrough
	default:
		a.err = s.held(now, wall, k, notAcquired(res.Outcome, "mutex", &r))
	}
	return a, false
}

// giveBack gives back a mutex that was granted to a caller that had left.
func (s *mutexShard) giveBack(k lease.Key, token int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	s.tell(now, wall, s.table.GiveBack(now, k, token).Events)
	s.arm(now)
}

// ring is called by the timer.
func (s *mutexShard) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = math.MaxInt64
	now, _ := s.begin()
	s.arm(now)
}

// begin returns the time, after it has expired what was due by then. The shard must be
// locked, also for the methods below.
func (s *mutexShard) begin() (now, wall int64) {
	now, wall = s.o.Clock()
	s.expire(now, wall)
	return now, wall
}

// expire ends the holds and waits whose time is over.
func (s *mutexShard) expire(now, wall int64) {
	for {
		events, ok := s.table.Expire(now)
		if !ok {
			return
		}
		s.tell(now, wall, events)
	}
}

// tell answers the waiters that a step of the table has granted the mutex or refused.
func (s *mutexShard) tell(now, wall int64, events []lease.Event) {
	if a := (audit{s.o.Audit, "mutex"}); a.log != nil {
		a.write(a.lines(nil, events, now, func(at int64) int64 { return wall + at - now }))
	}
	for _, e := range events {
		switch e.Kind {
		case lease.HolderGranted, lease.HolderEnded, lease.HolderRests:
			if s.o.Changed != nil {
				s.o.Changed(e.Key)
			}
		}
		a := mutexAnswer{at: now}
		switch e.Kind {
		case lease.HolderGranted:
			a.token = e.Holder.Token
		case lease.WaitRefused:
			a.err = e.Err
		case lease.WaitTimedOut:
			a.err = s.held(now, wall, e.Key, fmt.Sprintf("mutex %q is still held after the wait", e.Key.ID))
		}
		for _, w := range e.Waiters {
			answer(w, a)
		}
	}
}

// answer answers a waiter, which may be reused at once.
func answer(of *lease.Waiter, a mutexAnswer) {
	w := of.Data.(*MutexWait)
	w.answer = a
	w.wake()
}

// arm sets the timer if something ends earlier than the timer rings.
func (s *mutexShard) arm(now int64) {
	at, ok := s.table.Next()
	if !ok || at >= s.armed {
		return
	}
	s.armed = min(at, now+int64(commit.ClockTick)) // the timer stands still while the machine sleeps
	s.timer.Reset(time.Duration(s.armed - now))
}

// held is the refusal that names the oldest holder, if there is one.
func (s *mutexShard) held(now, wall int64, k lease.Key, reason string) error {
	h, _ := s.table.Oldest(now, k)
	return heldError(reason, h, holderOf(h, now, wall+h.Expires-now, s.table.Waiters(k)))
}

// LockMutex is Lock for a mutex, which lives in memory only.
func (d *DB) LockMutex(ctx context.Context, r LockRequest) (token int64, err error) {
	return d.mutexes.Lock(ctx, r)
}

// BeginMutex is Mutexes.Begin.
func (d *DB) BeginMutex(r LockRequest, wake func()) (w *MutexWait, token int64, err error) {
	return d.mutexes.Begin(r, wake)
}

// UnlockMutex gives a mutex back.
func (d *DB) UnlockMutex(r UnlockRequest) error { return d.mutexes.Unlock(r) }

// MutexHolders returns who holds a mutex and who waits for it, or ErrNotFound if it
// is free. With a token that is not 0 it returns only the holder that has it, or a
// *HeldError.
func (d *DB) MutexHolders(k Key, token int64) (Holders, error) { return d.mutexes.Holders(k, token) }
