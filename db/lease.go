package db

import (
	"fmt"
	"time"

	"clouddragon/internal/lease"
)

// Shared by mutexes in memory and locks on disk: requests, refusals, and what a user
// may see of holders.

// LockRequest asks for a mutex or a lock.
type LockRequest struct {
	Key    Key
	Owner  string        // names the holder, at most MaxOwner bytes; may be empty
	Token  int64         // if not 0: renew only, if this token holds
	Dur    time.Duration // how long it is held, from the grant
	Wait   time.Duration // how long to queue for it; 0: answer at once
	Limit  int           // how many may hold it at once; 0: one
	Shared bool          // a reader: any number of them hold it together; not with Limit
	Least  time.Duration // how long it stays held from the grant, though given back earlier
}

// UnlockRequest gives a mutex or a lock back.
type UnlockRequest struct {
	Key   Key
	Owner string
	Token int64 // 0: none given
	Force bool  // all holders, whoever they are
}

// MaxHolders is the largest Limit of a LockRequest.
const MaxHolders = 1_000_000

// Holder is what is known of a holder of a lock. The zero Holder is nobody.
type Holder struct {
	Owner   string        // the id it was locked with; empty if it was locked without
	Token   int64         // the fencing token
	TTL     time.Duration // until it is free by itself
	Expires time.Time     // the same as wall time
	Waiters int           // places in the queue: callers with the same id share one
}

// Waiter is a place in the queue of a lock.
type Waiter struct {
	Owner  string        // the id that its callers gave; empty if they gave none
	Waited time.Duration // how long it has been waiting
}

// MaxListed is the most holders and the most waiters that are listed.
const MaxListed = 100

// Holders are all that hold a lock and wait for it, as far as they are listed.
type Holders struct {
	Holders []Holder // the oldest first; at least one
	Queue   []Waiter // the first in line first
}

// HeldError is returned when another holds the lock, also after the wait, or when the
// token to renew or unlock is not the holder's. Nothing changed.
type HeldError struct {
	Reason string // one line
	Holder Holder // the zero Holder where the lock is free
}

func (e *HeldError) Error() string { return e.Reason }

// heldError makes the refusal name the oldest holder h, if there is one; seen is what
// a user may see of it.
func heldError(reason string, h lease.Holder, seen Holder) error {
	switch {
	case h.Owner != "" && h.Limit > 1:
		reason += fmt.Sprintf("; the oldest holder is %q", h.Owner)
	case h.Owner != "":
		reason += fmt.Sprintf("; the holder is %q", h.Owner)
	}
	if h.Resting {
		reason += "; it was given back or expired, and stays held for its least time"
	}
	return &HeldError{Reason: reason, Holder: seen}
}

// leaseRequest is what a lease table is asked.
func leaseRequest(r *LockRequest) lease.Request {
	limit := int32(r.Limit)
	if r.Shared {
		limit = lease.Shared
	}
	return lease.Request{Owner: r.Owner, Token: r.Token, Dur: int64(r.Dur), Wait: int64(r.Wait), Limit: limit, Least: int64(r.Least)}
}

// holderOf tells of a holder what a user may see of it.
func holderOf(h lease.Holder, now, wallEnd int64, waiters int) Holder {
	if h.Token == 0 {
		return Holder{}
	}
	return Holder{Owner: h.Owner, Token: h.Token, TTL: time.Duration(h.Expires - now), Expires: time.Unix(0, wallEnd), Waiters: waiters}
}

// notAcquired says why a lock is neither granted nor renewed. what is "lock" or "mutex".
func notAcquired(o lease.Outcome, what string, r *LockRequest) string {
	id := r.Key.ID
	switch {
	case o == lease.NotHolder:
		return fmt.Sprintf("token %d does not hold %s %q: nothing was renewed", r.Token, what, id)
	case o == lease.OtherMode && r.Token != 0:
		return fmt.Sprintf("token %d holds %s %q with another limit= or shared=: unlock it first", r.Token, what, id)
	case o == lease.OtherMode:
		return fmt.Sprintf("id=%q holds %s %q with another limit= or shared=: unlock it first", r.Owner, what, id)
	case o == lease.WaitsOtherwise:
		return fmt.Sprintf("id=%q waits for %s %q with another limit= or shared=", r.Owner, what, id)
	}
	return fmt.Sprintf("%s %q is held", what, id)
}

// notReleased says why a lock is not given back.
func notReleased(o lease.Outcome, what string, r *UnlockRequest) string {
	id := r.Key.ID
	switch {
	case o == lease.Several:
		return fmt.Sprintf("%s %q has several holders without an id: give the token= of one of them", what, id)
	case r.Token != 0 && r.Owner != "":
		return fmt.Sprintf("%s %q is held, but not by id=%q with token=%d", what, id, r.Owner, r.Token)
	case r.Token != 0:
		return fmt.Sprintf("%s %q is held, but not by token=%d", what, id, r.Token)
	case r.Owner != "":
		return fmt.Sprintf("%s %q is held, but not by id=%q", what, id, r.Owner)
	}
	return fmt.Sprintf("%s %q was locked with an id: give that id= or its token=", what, id)
}

// listHolders reads who holds a lock and who waits for it; with a token only the
// holder that has it. wall turns an instant into wall time. The error is ErrNotFound
// where nobody holds it, or a *HeldError where the token does not.
func listHolders(t *lease.Table, now int64, wall func(at int64) int64, what string, key Key, token int64) (all Holders, err error) {
	k := lease.Key(key)
	waiters := t.Waiters(k)
	seen := func(h lease.Holder) Holder { return holderOf(h, now, wall(h.Expires), waiters) }
	if token != 0 {
		h, ok := t.Holder(now, k, token)
		if !ok {
			oldest, _ := t.Oldest(now, k)
			return all, heldError(fmt.Sprintf("token %d does not hold %s %q", token, what, key.ID), oldest, seen(oldest))
		}
		return Holders{Holders: []Holder{seen(h)}}, nil
	}
	for _, h := range t.Holders(now, k, MaxListed) {
		all.Holders = append(all.Holders, seen(h))
	}
	if len(all.Holders) == 0 {
		return all, ErrNotFound
	}
	for _, w := range t.Queue(k, MaxListed) {
		all.Queue = append(all.Queue, Waiter{w.Owner, time.Duration(now - w.Since)})
	}
	return all, nil
}
