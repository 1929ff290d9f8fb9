package db

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"clouddragon/internal/lockq"
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
	// Token answers the next fencing token. It is called with a shard locked, so
	// it should rarely wait. Its error is the answer to the one who would have
	// been granted the mutex, which goes to the next instead.
	Token func() (int64, error)
	Limit *lockq.Limit // of callers that wait

	// Called by the goroutine that waited, many at once; nil: not at all.
	OnWait     func(time.Duration) // from queueing to the answer, whatever it was, or to hanging up
	OnHandOver func(time.Duration) // from the end of one hold to the wake-up of the next holder
}

type mutexShard struct {
	o *mutexOptions

	mu       sync.Mutex // guards what follows
	table    *lockq.Table
	timer    *time.Timer
	armed    int64 // what the timer is set to; math.MaxInt64: nothing
	draining bool
	tokenErr error // of the last grant: it has no token and is undone
}

// mutexCall is a caller that waits.
type mutexCall struct {
	waiter lockq.Waiter
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
		s.table = lockq.New(func() (token int64) {
			token, s.tokenErr = o.Token()
			return token
		}, o.Limit)
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
			s.giveBack(lockq.Key(r.Key), a.token)
		}
	}
	now, _ := m.o.Clock()
	if m.o.OnWait != nil {
		m.o.OnWait(time.Duration(now - asked))
	}
	if a.err != nil {
		return 0, a.err
	}
	if m.o.OnHandOver != nil {
		m.o.OnHandOver(time.Duration(now - a.at))
	}
	return a.token, nil
}

// Unlock frees a mutex, or hands it to the next who waits. That it was not
// locked is no error; a *HeldError says that it is another's.
func (m *Mutexes) Unlock(r UnlockRequest) error {
	s := m.shard(r.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	k := lockq.Key(r.Key)
	res := s.table.Release(now, k, r.Owner, r.Token, r.Force)
	if res.Outcome == lockq.NotHolder {
		return s.held(now, wall, k, res.Hold, notHolder("mutex", k.ID, r.Owner, r.Token))
	}
	s.passed(now, k, res)
	return nil
}

// Drain makes whoever waits for a mutex, now or later, get ErrStopping. Other
// calls go on.
func (m *Mutexes) Drain() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, _ := s.begin()
		s.draining = true
		s.table.Drain(func(_ lockq.Key, w *lockq.Waiter) { answer(w, mutexAnswer{err: ErrStopping, at: now}) })
		s.mu.Unlock()
	}
}

// Stats returns the counters of all mutexes together.
func (m *Mutexes) Stats() lockq.Stats {
	var sum lockq.Stats
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		st := s.table.Stats()
		s.mu.Unlock()
		sum.Held += st.Held
		sum.Waiting += st.Waiting
		sum.Expired += st.Expired
	}
	return sum
}

// acquire answers at once, or queues c: then the answer's at says since when.
func (s *mutexShard) acquire(r LockRequest, c *mutexCall) (a mutexAnswer, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wall := s.begin()
	defer s.arm(now)
	q := lockq.Request{Owner: r.Owner, Token: r.Token, Dur: int64(r.Dur), Wait: int64(r.Wait)}
	if s.draining {
		q.Wait = 0
	}
	k := lockq.Key(r.Key)
	res := s.table.Acquire(now, k, q, &c.waiter)
	a.at = now
	switch res.Outcome {
	case lockq.Granted:
		if a.token, a.err = res.Hold.Token, s.tokenErr; a.err != nil {
			s.passed(now, k, s.table.Release(now, k, "", 0, true))
		}
	case lockq.Renewed:
		a.token = res.Hold.Token
	case lockq.Queued:
		return a, true
	case lockq.Crowded:
		a.err = ErrWaiters
	case lockq.NotHolder:
		a.err = s.held(now, wall, k, res.Hold, fmt.Sprintf("token %d does not hold mutex %q: nothing was renewed", r.Token, k.ID))
	case lockq.Held:
		if s.draining && r.Wait > 0 {
			a.err = ErrStopping
		} else {
			a.err = s.held(now, wall, k, res.Hold, fmt.Sprintf("mutex %q is held", k.ID))
		}
	}
	return a, false
}

// leave takes c out of its queue, with cause as its answer. If it was answered before, it
// returns that answer.
func (s *mutexShard) leave(c *mutexCall, cause error) mutexAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.Cancel(&c.waiter) {
		return mutexAnswer{err: cause}
	}
	return <-c.done
}

// giveBack passes on what was granted to a caller that is gone.
func (s *mutexShard) giveBack(k lockq.Key, token int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, _ := s.begin()
	s.passed(now, k, s.table.GiveBack(now, k, token))
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
	for {
		k, res, ok := s.table.Expire(now)
		if !ok {
			return now, wall
		}
		if res.Outcome == lockq.TimedOut {
			err := s.held(now, wall, k, res.Hold, fmt.Sprintf("mutex %q is still held after the wait", k.ID))
			answer(res.Waiter, mutexAnswer{err: err, at: now})
			continue
		}
		s.passed(now, k, res)
	}
}

// passed tells the waiter to whom a mutex went, if it went to one.
func (s *mutexShard) passed(now int64, k lockq.Key, res lockq.Result) {
	for res.Waiter != nil {
		err := s.tokenErr
		answer(res.Waiter, mutexAnswer{token: res.Hold.Token, err: err, at: now})
		if err == nil {
			return
		}
		res = s.table.Release(now, k, "", 0, true)
	}
}

// answer wakes a waiter up, which may use its memory again at once.
func answer(w *lockq.Waiter, a mutexAnswer) { w.Data.(*mutexCall).done <- a }

// arm sets the timer if something ends before it rings.
func (s *mutexShard) arm(now int64) {
	at, ok := s.table.Next()
	if !ok || at >= s.armed {
		return
	}
	s.armed = min(at, now+int64(clockTick)) // the timer stands still while the machine sleeps
	s.timer.Reset(time.Duration(s.armed - now))
}

func (s *mutexShard) held(now, wall int64, k lockq.Key, h lockq.Hold, reason string) error {
	if h == (lockq.Hold{}) {
		return &HeldError{Reason: reason}
	}
	if h.Owner != "" {
		reason += fmt.Sprintf("; the holder is %q", h.Owner)
	}
	_, waiting, _ := s.table.Holder(now, k)
	return &HeldError{Reason: reason, Holder: Holder{
		Owner:   h.Owner,
		Token:   h.Token,
		TTL:     time.Duration(h.Expires - now),
		Expires: time.Unix(0, wall+h.Expires-now),
		Waiters: waiting,
	}}
}
