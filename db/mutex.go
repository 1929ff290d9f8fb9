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

// Mutexes are the locks that live in memory only. Its methods may be called by
// any goroutine.
//
// A mutex belongs to one of many shards, each with its own queues, so that
// unrelated mutexes rarely meet. A shard has one timer, set to the first end of
// a hold or a wait in it; an end that comes later than what the timer is set to
// does not touch it, so a mutex that is locked and unlocked costs no timer.
type Mutexes struct {
	o      mutexOptions
	seed   maphash.Seed
	calls  sync.Pool // of *mutexCall, none of them in a queue
	shards [mutexShards]mutexShard
}

const mutexShards = 64

// mutexOptions are what the mutexes take from outside.
type mutexOptions struct {
	Clock Clock
	// Token answers the next fencing token, for a mutex of that account. It is called with a shard locked, so
	// it should rarely wait. Its error is the answer to the one who would have
	// been granted the mutex, which goes to the next instead.
	Token func(acc string) (int64, error)
	Limit *lease.Limit // of callers that wait
	// Changed is called with a shard locked when a mutex has other holders; nil: it
	// is not.
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

// mutexCall is a caller that waits.
type mutexCall struct {
	waiter lease.Waiter
	done   chan mutexAnswer // has room for the one answer, so that whoever gives it never blocks
}

type mutexAnswer struct {
	token int64
	err   error
	at    int64 // when it was given
}

func newMutexCall() any {
	c := &mutexCall{done: make(chan mutexAnswer, 1)}
	c.waiter.Data = c
	return c
}

func newMutexes(o mutexOptions) *Mutexes {
	m := &Mutexes{o: o, seed: maphash.MakeSeed(), calls: sync.Pool{New: newMutexCall}}
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

// Lock takes or renews a mutex and returns its token. With a wait it queues; a
// caller whose ctx ends leaves the queue, or gives back what it was granted
// meanwhile, and gets the cause. A *HeldError says that another holds it, also
// after the wait, or that the token to renew is not the holder's. ErrWaiters
// and ErrStopping say that there is no queueing.
func (m *Mutexes) Lock(ctx context.Context, r LockRequest) (token int64, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	s := m.shard(r.Key)
	c := m.calls.Get().(*mutexCall)
	defer m.calls.Put(c)
	a, queued := s.acquire(r, c)
	if !queued {
		return a.token, a.err
	}
	asked := a.at
	select {
	case a = <-c.done:
	case <-ctx.Done():
		a = s.leave(c, context.Cause(ctx))
	}
	if a.err == nil {
		if a.err = gone(ctx); a.err != nil {
			s.giveBack(lease.Key(r.Key), a.token)
		}
	}
	now, _ := m.o.Clock()
	m.o.Observer.Waited(MutexInMemory, time.Duration(now-asked))
	if a.err != nil {
		return 0, a.err
	}
	m.o.Observer.HandedOver(MutexInMemory, time.Duration(now-a.at))
	return a.token, nil
}

// Unlock ends a hold of a mutex, or all with Force, and lets in who waits. That
// it was not locked is no error, nor that the hold was given back before and rests;
// a *HeldError says that it is another's.
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

// Drain makes whoever waits for a mutex, now or later, get ErrStopping. Other
// calls go on.
func (m *Mutexes) Drain() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, _ := s.begin()
		s.draining = true
		s.table.Drain(func(_ lease.Key, w *lease.Waiter) { answer(w, mutexAnswer{err: ErrStopping, at: now}) })
		s.mu.Unlock()
	}
}

// Stats returns the counters of all mutexes together.
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

// acquire answers at once, or queues c: then the answer's at says since when.
func (s *mutexShard) acquire(r LockRequest, c *mutexCall) (a mutexAnswer, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	q := leaseRequest(&r)
	if s.draining {
		q.Wait = 0
	}
	k := lease.Key(r.Key)
	res := s.table.Acquire(now, k, q, &c.waiter)
	s.tell(now, wall, res.Events)
	a.at = now
	switch res.Outcome {
	case lease.Granted, lease.Renewed:
		a.token = res.Holder.Token
	case lease.NoToken:
		a.err = res.Err
	case lease.Queued:
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

// leave takes c out of its queue, with cause as its answer, and lets in whoever it
// held up. If it was answered before, it returns that answer.
func (s *mutexShard) leave(c *mutexCall, cause error) mutexAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.o.Clock()
	if !s.table.Cancel(now, &c.waiter) {
		return <-c.done
	}
	s.expire(now, wall)
	s.arm(now)
	return mutexAnswer{err: cause}
}

// giveBack passes on what was granted to a caller that is gone.
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

// begin tells the time and ends what is over by then. The shard is locked, as
// in all that follow.
func (s *mutexShard) begin() (now, wall int64) {
	now, wall = s.o.Clock()
	s.expire(now, wall)
	return now, wall
}

// expire ends what is over by now.
func (s *mutexShard) expire(now, wall int64) {
	for {
		events, ok := s.table.Expire(now)
		if !ok {
			return
		}
		s.tell(now, wall, events)
	}
}

// tell answers the waiters that a step of the table granted the mutex to, or
// refused.
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

// answer wakes a waiter up, which may use its memory again at once.
func answer(w *lease.Waiter, a mutexAnswer) { w.Data.(*mutexCall).done <- a }

// arm sets the timer if something ends before it rings.
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

// LockMutex takes or renews a mutex, which lives in memory only. It is as Lock otherwise.
func (d *DB) LockMutex(ctx context.Context, r LockRequest) (token int64, err error) {
	return d.mutexes.Lock(ctx, r)
}

// UnlockMutex gives a mutex back.
func (d *DB) UnlockMutex(r UnlockRequest) error { return d.mutexes.Unlock(r) }

// MutexHolders returns who holds a mutex and who waits for it, or ErrNotFound if it
// is free. With a token that is not 0 it returns only the holder that has it, or a
// *HeldError.
func (d *DB) MutexHolders(k Key, token int64) (Holders, error) { return d.mutexes.Holders(k, token) }
