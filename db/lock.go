package db

import (
	"context"
	"sync"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// LockTake is the operation that takes or renews a lock on disk. With a Wait its
// call is answered once the lock is the caller's, or the wait is over; Leave takes
// it out of the queue.
type LockTake struct {
	LockRequest

	// Holder is the answer: the hold that the caller has.
	Holder Holder
	// Queued reports whether the call had to wait. Asked is since when, and Passed is
	// when the hold before it ended, in database time.
	Queued        bool
	Asked, Passed int64

	locks    *locks
	waiter   lease.Waiter
	draining func() bool
	left     error // not nil: the caller went away before the call was decided
}

// Size returns the most bytes that the operation adds to the log.
func (o *LockTake) Size() int { return lockChange }

// Frees is false.
func (o *LockTake) Frees() bool { return false }

func (o *LockTake) account() string { return o.Key.Acc }

func (o *LockTake) prepare(d *DB) error {
	o.locks, o.draining, o.Queued = d.locks, d.draining.Load, false
	return nil
}

// Decide takes the lock, renews it, or queues for it. A *HeldError says that
// another holds it, or that the token to renew is not a holder's. ErrWaiters and
// ErrStopping say that there is no queueing.
func (o *LockTake) Decide(tx *commit.Tx) error {
	if o.left != nil {
		return o.left
	}
	l, k := o.locks, lease.Key(o.Key)
	o.waiter.Data = tx.Call()
	l.begin(tx)
	res := l.table.Acquire(tx.Now(), k, leaseRequest(&o.LockRequest), &o.waiter)
	if err := l.apply(tx, res.Events); err != nil {
		return err
	}
	if res.Outcome == lease.Queued && o.draining() {
		return ErrStopping
	}
	switch res.Outcome {
	case lease.Granted, lease.Renewed:
		o.Holder = l.seen(tx, k, res.Holder)
		return nil
	case lease.Queued:
		o.Queued, o.Asked = true, tx.Now()
		return commit.ErrWaiting
	case lease.Crowded:
		return ErrWaiters
	case lease.NoToken:
		return res.Err
	}
	return l.held(tx, k, notAcquired(res.Outcome, "lock", &o.LockRequest))
}

// LockLeave is the operation that takes a call out of the queue of its lock.
type LockLeave struct {
	Take *LockTake
	Err  error // the answer to the call of Take

	// Left is the answer: false if the call was not in a queue, since it is answered.
	Left bool
}

// Size is 0: leaving needs no room.
func (o *LockLeave) Size() int { return 0 }

// Frees is true.
func (o *LockLeave) Frees() bool { return true }

func (*LockLeave) account() string { return "" }

func (o *LockLeave) prepare(*DB) error { return nil }

// Decide leaves the queue.
func (o *LockLeave) Decide(tx *commit.Tx) error {
	if o.Left = o.Take.locks.table.Cancel(tx.Now(), &o.Take.waiter); o.Left {
		tx.Answer(o.Take.waiter.Data.(*Call), o.Err)
		return nil
	}
	o.Take.left = o.Err // in case it is still to be decided: it may lack room
	return nil
}

// LockGiveBack is the operation that gives back what was granted to a call whose
// caller has gone before it was told.
type LockGiveBack struct {
	Key   Key
	Token int64

	locks *locks
}

// Size returns the most bytes that the operation adds to the log.
func (o *LockGiveBack) Size() int { return lockChange }

// Frees is true.
func (o *LockGiveBack) Frees() bool { return true }

func (*LockGiveBack) account() string { return "" }

func (o *LockGiveBack) prepare(d *DB) error {
	o.locks = d.locks
	return nil
}

// Decide gives the lock back, unless its owner asked again and was told.
func (o *LockGiveBack) Decide(tx *commit.Tx) error {
	o.locks.begin(tx)
	return o.locks.apply(tx, o.locks.table.GiveBack(tx.Now(), lease.Key(o.Key), o.Token).Events)
}

// LockRelease is the operation that gives a lock back.
type LockRelease struct {
	UnlockRequest

	locks *locks
}

// Size returns the most bytes that the operation adds to the log.
func (o *LockRelease) Size() int { return lockChange }

// Frees is true.
func (o *LockRelease) Frees() bool { return true }

func (o *LockRelease) account() string { return o.Key.Acc }

func (o *LockRelease) prepare(d *DB) error {
	o.locks = d.locks
	return nil
}

// Decide frees the lock, or hands it to the next in its queue. That it was not
// locked is no error; a *HeldError says that it is another's.
func (o *LockRelease) Decide(tx *commit.Tx) error {
	l, k := o.locks, lease.Key(o.Key)
	l.begin(tx)
	res := l.table.Release(tx.Now(), k, o.Owner, o.Token, o.Force)
	if err := l.apply(tx, res.Events); err != nil {
		return err
	}
	if res.Outcome == lease.NotHolder || res.Outcome == lease.Several {
		return l.held(tx, k, notReleased(res.Outcome, "lock", &o.UnlockRequest))
	}
	return nil
}

// LockRead is the operation that reads who has a lock.
type LockRead struct {
	Key   Key
	Token int64 // if not 0: the holder with this token, else a *HeldError

	// Holders is the answer.
	Holders Holders

	locks *locks
}

// Size is 0: reading needs no room.
func (o *LockRead) Size() int { return 0 }

// Frees is true.
func (o *LockRead) Frees() bool { return true }

func (o *LockRead) account() string { return o.Key.Acc }

func (o *LockRead) prepare(d *DB) error {
	o.locks = d.locks
	return nil
}

// Decide reads. The error is ErrNotFound where nobody has the lock.
func (o *LockRead) Decide(tx *commit.Tx) (err error) {
	o.Holders, err = listHolders(o.locks.table, tx.Now(), tx.Wall, "lock", o.Key, o.Token)
	return err
}

// calls are LockTakes with what it takes to wait for them.
var lockCalls = sync.Pool{New: func() any {
	c := &lockCall{answered: make(chan struct{}, 1)}
	c.call.Op = &c.take
	c.call.Done = func(*Call) { c.answered <- struct{}{} }
	return c
}}

type lockCall struct {
	take     LockTake
	call     Call
	answered chan struct{} // has room for one token
}

// Lock takes or renews the lock on disk and returns its token. With a wait it
// queues; a caller whose ctx ends leaves the queue, and gives back what it was
// granted meanwhile. The error is as LockTake.Decide says, or the context's.
func (d *DB) Lock(ctx context.Context, r LockRequest) (token int64, err error) {
	c := lockCalls.Get().(*lockCall)
	c.take = LockTake{LockRequest: r}
	err = d.awaitLock(ctx, c)
	token = c.take.Holder.Token
	c.call = Call{Op: c.call.Op, Done: c.call.Done}
	lockCalls.Put(c)
	if err != nil {
		return 0, err
	}
	return token, nil
}

// awaitLock submits a call and waits for its answer, or until its caller is gone.
func (d *DB) awaitLock(ctx context.Context, c *lockCall) error {
	moves := d.moves.changed()
	if err := d.Submit(&c.call); err != nil {
		return err
	}
	if c.take.Wait == 0 {
		<-c.answered
		return c.call.Err
	}
	if cause := d.waits(ctx, c.take.Key.Acc, c.answered, moves); cause != nil {
		leave := LockLeave{Take: &c.take, Err: cause}
		// Its error changes nothing: a queue that is closed answers the call by itself.
		_ = d.Do(&leave)
		<-c.answered
	}
	d.observeWait(&c.take, c.call.Err)
	if c.call.Err != nil {
		return c.call.Err
	}
	if err := gone(ctx); err != nil {
		// Without room in the log the lock stays held until its time is over.
		_ = d.Do(&LockGiveBack{Key: c.take.Key, Token: c.take.Holder.Token})
		return err
	}
	return nil
}

// observeWait tells how long an operation that queued has waited.
func (d *DB) observeWait(o *LockTake, err error) {
	if !o.Queued {
		return
	}
	now := d.store.Clock.Now()
	d.observer.Waited(LockOnDisk, time.Duration(now-o.Asked))
	if err == nil {
		d.observer.HandedOver(LockOnDisk, time.Duration(now-o.Passed))
	}
}
