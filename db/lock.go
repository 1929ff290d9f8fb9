package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clouddragon/internal/lease"
)

// The payload of a lock's slot. It has room for the longest owner, so that a
// hand-over from one holder to the next never needs another slot.
//
//	 0  u64 token
//	 8  i64 end of the hold in database time, see clock.go
//	16  u8 length of the owner's id, then the id, then zeros
const (
	lockHead = 17                  // part of the file format, never changed
	lockSize = lockHead + MaxOwner // part of the file format, never changed
)

// Lock takes or renews the lock on disk and returns its token. With a wait it
// queues; a caller whose ctx ends leaves the queue, and gives back what it was
// granted meanwhile. A *HeldError says that another holds it, or that the token
// to renew is not the holder's.
func (d *DB) Lock(ctx context.Context, r LockRequest) (token int64, err error) {
	o := newOp(verbLock, kindLock, r.Key)
	o.owner, o.token, o.dur, o.wait = r.Owner, r.Token, int64(r.Dur), int64(r.Wait)
	o.ctx = ctx
	began := d.clock.now()
	err = d.do(o)
	d.observeWait(o, began)
	token = o.value
	o.free()
	return token, err
}

// observeWait tells how long an operation that queued has waited.
func (d *DB) observeWait(o *op, began int64) {
	if !o.queued || d.onLockWait == nil {
		return
	}
	now := d.clock.now()
	d.onLockWait(time.Duration(now - began))
	if o.err == nil && d.onLockHandOver != nil {
		d.onLockHandOver(time.Duration(now - o.passedAt))
	}
}

// Unlock frees the lock, or hands it to the next who waits. That it was not
// locked is no error; a *HeldError says that it is another's.
func (d *DB) Unlock(r UnlockRequest) error {
	o := newOp(verbUnlock, kindLock, r.Key)
	defer o.free()
	o.owner, o.token, o.force = r.Owner, r.Token, r.Force
	return d.do(o)
}

// LockHolder says who has the lock, or ErrNotFound.
func (d *DB) LockHolder(k Key) (Holder, error) {
	o := newOp(verbHolder, kindLock, k)
	defer o.free()
	err := d.do(o)
	return o.holder, err
}

// LockMutex takes or renews a mutex, which lives in memory only. It is as Lock otherwise.
func (d *DB) LockMutex(ctx context.Context, r LockRequest) (token int64, err error) {
	return d.mutexes.Lock(ctx, r)
}

// UnlockMutex is as Unlock, for a mutex.
func (d *DB) UnlockMutex(r UnlockRequest) error { return d.mutexes.Unlock(r) }

// MutexHolders returns who holds a mutex and who waits for it, or ErrNotFound if it
// is free. With a token that is not 0 it returns only the holder that has it, or a
// *HeldError.
func (d *DB) MutexHolders(k Key, token int64) (Holders, error) { return d.mutexes.Holders(k, token) }

// await waits for the answer to o, or until its caller is gone: then what o was
// granted, or is being granted, goes to the next.
func (d *DB) await(o *op) {
	if o.ctx == nil || o.wait == 0 {
		<-o.done
		return
	}
	answered := false
	var cause error
	select {
	case <-o.done:
		answered = true
		if o.err != nil {
			return
		}
		if cause = gone(o.ctx); cause == nil {
			return
		}
	case <-o.ctx.Done():
		cause = context.Cause(o.ctx)
	}
	c := newOp(verbCancel, kindLock, Key{o.key.Acc, o.key.ID})
	c.target = o
	// Its error changes nothing: a closed queue answers o by itself, and without
	// room in the log o keeps what it was granted until that ends.
	_ = d.do(c)
	if !answered {
		<-o.done
	}
	c.free()
	o.err = cause
}

func lockKey(o *op) lease.Key { return lease.Key{Acc: o.key.Acc, ID: o.key.ID} }

func (d *DB) decideLock(o *op) {
	c := d.batch.find(o.key, o.hash)
	if !c.live {
		// Room first: what the queue has granted is not taken back.
		if o.capacity, o.err = d.batch.canSet(c, lockSize); o.err != nil {
			return
		}
	}
	o.waiter.Data = o
	res := d.locks.Acquire(d.now, lockKey(o), lease.Request{Owner: o.owner, Token: o.token, Dur: o.dur, Wait: o.wait}, &o.waiter)
	d.leased(res.Events)
	switch res.Outcome {
	case lease.Granted, lease.Renewed:
		o.value = res.Holder.Token
	case lease.Queued:
		if d.draining.Load() {
			d.locks.Cancel(d.now, &o.waiter)
			o.err = ErrStopping
			return
		}
		o.queued = true
	case lease.Crowded:
		o.err = ErrWaiters
	case lease.NotHolder:
		o.err = d.held(o.key.ID, lockKey(o), fmt.Sprintf("token %d does not hold lock %q: nothing was renewed", o.token, o.key.ID))
	default:
		o.err = d.held(o.key.ID, lockKey(o), fmt.Sprintf("lock %q is held", o.key.ID))
	}
}

func (d *DB) decideUnlock(o *op) {
	res := d.locks.Release(d.now, lockKey(o), o.owner, o.token, o.force)
	d.leased(res.Events)
	if res.Outcome == lease.NotHolder {
		o.err = d.held(o.key.ID, lockKey(o), notHolder("lock", o.key.ID, o.owner, o.token))
	}
}

// notHolder tells whoever may not unlock why.
func notHolder(what, id, owner string, token int64) string {
	switch {
	case token != 0 && owner != "":
		return fmt.Sprintf("%s %q is held, but not by id=%q with token=%d", what, id, owner, token)
	case token != 0:
		return fmt.Sprintf("%s %q is held, but not by token=%d", what, id, token)
	case owner != "":
		return fmt.Sprintf("%s %q is held, but not by id=%q", what, id, owner)
	default:
		return fmt.Sprintf("%s %q was locked with an id: give that id= or its token=", what, id)
	}
}

func (d *DB) decideHolder(o *op) {
	h, ok := d.locks.Oldest(d.now, lockKey(o))
	if !ok {
		o.err = ErrNotFound
		return
	}
	o.holder = d.holder(h, d.locks.Waiters(lockKey(o)))
}

// leave takes a caller that is gone out of its queue, and says whether it was in one.
func (d *DB) leave(t *op) bool {
	if !d.locks.Cancel(d.now, &t.waiter) {
		return false
	}
	t.err = errGone
	d.answers = append(d.answers, t)
	return true
}

// decideCancel hands what was granted to a caller that is gone to the next.
func (d *DB) decideCancel(o *op) {
	t := o.target
	if t.value == 0 {
		return // refused meanwhile
	}
	d.leased(d.locks.GiveBack(d.now, lockKey(t), t.value).Events)
}

// errGone answers an operation whose caller no longer listens.
var errGone = errors.New("the caller is gone")

// expire ends the holds and waits that are over, as far as the log has room.
func (d *DB) expire(room int) {
	for d.batch.bytes()+opRoom <= room && d.batch.size < maxBatch {
		events, ok := d.locks.Expire(d.now)
		if !ok {
			return
		}
		d.leased(events)
	}
}

// timedOut answers whoever waited for a lock while it was held.
func (d *DB) timedOut(k lease.Key, w *lease.Waiter) {
	o := w.Data.(*op)
	o.err = d.held(k.ID, k, fmt.Sprintf("lock %q is still held after the wait", k.ID))
	d.answers = append(d.answers, o)
}

// timedOutFull is timedOut where the log has no room to say that a hold is over.
func (d *DB) timedOutFull(k lease.Key, w *lease.Waiter) {
	d.timedOut(k, w)
	if _, held := d.locks.Oldest(d.now, k); !held {
		w.Data.(*op).err = ErrFull // its turn has come
	}
}

// leased notes what a step of the locks changed, and answers those who waited.
func (d *DB) leased(events []lease.Event) {
	for i, e := range events {
		key := slotKey(kindLock, Key(e.Key))
		switch e.Kind {
		case lease.HolderGranted, lease.HolderRenewed:
			d.setLock(d.batch.find(key, key.Hash()), e.Holder)
			for _, w := range e.Waiters {
				o := w.Data.(*op)
				o.value, o.passedAt = e.Holder.Token, d.now
				d.answers = append(d.answers, o)
			}
		case lease.HolderEnded:
			// The slot of a lock that goes on to the next is written anew.
			if !slices.ContainsFunc(events[i:], func(e lease.Event) bool { return e.Kind == lease.HolderGranted }) {
				d.batch.remove(d.batch.find(key, key.Hash()))
			}
		case lease.WaitTimedOut:
			d.timedOut(e.Key, e.Waiters[0])
		}
	}
}

// setLock puts a hold into the lock's slot. There is room: the slot is there
// while the lock is held, and before that canSet was asked.
func (d *DB) setLock(c *change, h lease.Holder) {
	var b [lockSize]byte
	le.PutUint64(b[:], uint64(h.Token))
	le.PutUint64(b[8:], uint64(h.Expires))
	b[16] = uint8(len(h.Owner))
	copy(b[lockHead:], h.Owner)
	d.batch.dated = true
	if _, err := d.batch.set(c, b[:]); err != nil {
		panic("db: a lock's slot went away: " + err.Error())
	}
}

// restoreLock takes over a lock that was held when the last process ended.
func (d *DB) restoreLock(k lease.Key, payload []byte) error {
	if len(payload) != lockSize || int(payload[16]) > MaxOwner {
		return fmt.Errorf("lock %q has a payload of %d bytes, want %d", k.ID, len(payload), lockSize)
	}
	d.locks.Restore(k, lease.Holder{
		Limit:   1,
		Token:   int64(le.Uint64(payload)),
		Owner:   string(payload[lockHead : lockHead+int(payload[16])]),
		Expires: int64(le.Uint64(payload[8:])),
	})
	return nil
}

func (d *DB) held(id string, k lease.Key, reason string) error {
	h, ok := d.locks.Oldest(d.now, k)
	if !ok {
		return &HeldError{Reason: reason}
	}
	holder := d.holder(h, d.locks.Waiters(k))
	if holder.Owner != "" {
		reason += fmt.Sprintf("; the holder is %q", holder.Owner)
	}
	return &HeldError{Reason: reason, Holder: holder}
}

func (d *DB) holder(h lease.Holder, waiting int) Holder {
	return Holder{
		Owner:   h.Owner,
		Token:   h.Token,
		TTL:     time.Duration(h.Expires - d.now),
		Expires: time.Unix(0, d.wall+h.Expires-d.now),
		Waiters: waiting,
	}
}
