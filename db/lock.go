package db

import (
	"context"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// LockTake is the operation that takes or renews a lock on disk. With a Wait its call is
// answered when the lock is granted or the wait is over. LockLeave takes it out of the
// queue.
type LockTake struct {
	LockRequest

	// Holder is the answer: the caller's hold.
	Holder Holder
	// Queued reports whether the call had to wait. Asked is when the wait began, and
	// Passed when the hold before it ended, in database time.
	Queued        bool
	Asked, Passed int64

	locks    *locks
	waiter   lease.Waiter
	draining func() bool
	left     error // not nil: the caller left before the call was decided
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

// Decide takes the lock, renews it, or queues for it. It returns a *HeldError if another
// caller holds it, or if the token to renew is not a holder's. It returns ErrWaiters or
// ErrStopping if the call cannot queue.
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
	Err  error // the answer to Take's call

	// Left is the answer. It is false if the call was not in a queue any more because it
	// has been answered.
	Left bool

	locks *locks
}

// Size is 0: leaving needs no room.
func (o *LockLeave) Size() int { return 0 }

// Frees is true.
func (o *LockLeave) Frees() bool { return true }

func (*LockLeave) account() string { return "" }

func (o *LockLeave) prepare(d *DB) error {
	o.locks = d.locks
	return nil
}

// Decide leaves the queue.
func (o *LockLeave) Decide(tx *commit.Tx) error {
	if o.Left = o.locks.table.Cancel(tx.Now(), &o.Take.waiter); o.Left {
		tx.Answer(o.Take.waiter.Data.(*Call), o.Err)
		return nil
	}
	o.Take.left = o.Err // if it lacked room, it will be decided later
	return nil
}

// LockGiveBack is the operation that gives back a lock that was granted to a caller that
// had left.
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

// Decide gives the lock back, unless its owner has asked again and was answered.
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

// Decide frees the lock or hands it to the next waiter. A free lock is not an error. It
// returns a *HeldError if another caller holds the lock.
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

// LockRead is the operation that reads the holders of a lock.
type LockRead struct {
	Key   Key
	Token int64 // if not 0: read only the holder with this token; a *HeldError if there is none

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

// Decide reads the holders, or returns ErrNotFound if the lock is free.
func (o *LockRead) Decide(tx *commit.Tx) (err error) {
	o.Holders, err = listHolders(o.locks.table, tx.Now(), tx.Wall, "lock", o.Key, o.Token)
	return err
}

// Waits reports how long the call may wait.
func (o *LockTake) Waits() time.Duration { return o.Wait }

func (o *LockTake) leave(why error) Operation { return &LockLeave{Take: o, Err: why} }

// giveBack returns the operation that gives the lock back. If the log has no room, the lock
// stays held until its end.
func (o *LockTake) giveBack() Operation { return &LockGiveBack{Key: o.Key, Token: o.Holder.Token} }

// answered reports how long the call has waited, if it queued.
func (o *LockTake) answered(d *DB, err error) {
	if !o.Queued {
		return
	}
	now := d.store.Clock.Now()
	d.observer.Waited(LockOnDisk, time.Duration(now-o.Asked))
	if err == nil {
		d.observer.HandedOver(LockOnDisk, time.Duration(now-o.Passed))
	}
}

// Lock takes or renews a lock on disk and returns its token. With a wait it queues. If ctx
// ends, the caller leaves the queue, and a grant meanwhile is given back. The errors are
// those of LockTake.Decide and the context's.
func (d *DB) Lock(ctx context.Context, r LockRequest) (token int64, err error) {
	o := LockTake{LockRequest: r}
	if err := d.await(ctx, &o); err != nil {
		return 0, err
	}
	return o.Holder.Token, nil
}
