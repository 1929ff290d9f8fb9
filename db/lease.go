package db

import (
	"fmt"
	"time"

	"clouddragon/internal/lease"
)

// Shared by mutexes in memory and locks on disk: requests, refusals, and holders as users
// see them.

// LockRequest asks for a mutex or a lock.
type LockRequest struct {
	Key    Key
	Owner  string        // names the holder, at most MaxOwner bytes; may be empty
	Token  int64         // if not 0: only renew, if this token holds the lock
	Dur    time.Duration // how long it is held, from the grant
	Wait   time.Duration // how long to wait for it; 0: answer at once
	Limit  int           // how many may hold it at once; 0: one
	Shared bool          // a reader: any number of them hold it together; not with Limit
	Least  time.Duration // how long it stays held from the grant, even if given back earlier
}

// UnlockRequest gives a mutex or a lock back.
type UnlockRequest struct {
	Key   Key
	Owner string
	Token int64 // 0: none given
	Force bool  // end all holds, whoever has them
}

// MaxHolders is the largest Limit of a LockRequest.
const MaxHolders = 1_000_000

// Holder is a holder of a lock. The zero Holder stands for no holder.
type Holder struct {
	Owner   string        // the id it was locked with; empty if it was locked without
	Token   int64         // the fencing token
	TTL     time.Duration // until the hold ends
	Expires time.Time     // when the hold ends, as wall time
	Waiters int           // places in the queue: callers with the same id share one
}

// Waiter is a place in the queue of a lock.
type Waiter struct {
	Owner  string        // the id of its callers; empty if they gave none
	Waited time.Duration // how long the first of them has been waiting
}

// MaxListed is the most holders and the most waiters that are listed.
const MaxListed = 100

// Holders are the holders of a lock and its waiters, at most MaxListed of each.
type Holders struct {
	Holders []Holder // the oldest first; at least one
	Queue   []Waiter // the first in line first
}

// HeldError is returned when another caller holds the lock, also after the wait, or when
// the token to renew or unlock is not a holder's. Nothing changed.
type HeldError struct {
	Reason string // one line
	Holder Holder // the zero Holder if the lock is free
}

func (e *HeldError) Error() string { return e.Reason }

// heldError adds the oldest holder h to a refusal, if there is one. seen is h as users see
// it.
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

// leaseRequest converts a request for a lease table.
func leaseRequest(r *LockRequest) lease.Request {
	limit := int32(r.Limit)
	if r.Shared {
		limit = lease.Shared
	}
	return lease.Request{Owner: r.Owner, Token: r.Token, Dur: int64(r.Dur), Wait: int64(r.Wait), Limit: limit, Least: int64(r.Least)}
}

// holderOf converts a holder of a lease table to what users see.
func holderOf(h lease.Holder, now, wallEnd int64, waiters int) Holder {
	if h.Token == 0 {
		return Holder{}
	}
	return Holder{Owner: h.Owner, Token: h.Token, TTL: time.Duration(h.Expires - now), Expires: time.Unix(0, wallEnd), Waiters: waiters}
}

// notAcquired returns the refusal of a call that takes a lock. what is "lock" or "mutex".
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

// notReleased returns the refusal of a call that gives a lock back.
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

// listHolders reads the holders and waiters of a lock. With a token it reads only the
// holder that has it. wall converts an instant to wall time. The error is ErrNotFound if
// the lock is free, or a *HeldError if the token does not hold it.
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
