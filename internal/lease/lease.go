// Package lease decides who holds a lock, who waits for it and when that ends. It does no I/O, starts no goroutine
// and reads no clock: every call says what time it is.
//
// A lock may have several holders. Each of them says how many holders it allows: a plain lock allows one, a
// semaphore allows its limit, a reader allows any number. One rule covers them all: a grant never makes more
// holders than it allows itself, or than any present holder allows. The first claim in the queue is never
// overtaken, so a writer that waits holds up the readers behind it.
//
//	free ─── Acquire ──────────────────────────────────► held
//	held ─── Acquire by its owner or token ────────────► held for longer, same token
//	held ─── Acquire by another ───────────────────────► one more holder if the rule allows it, else refused or queued
//	held ─── Release, or its time is over ─────────────► resting until its least time is over, else ended
//	held ─── Release by force, GiveBack ───────────────► ended
//	ended ─────────────────────────────────────────────► the first claims in the queue are granted, as many as fit
//
// A claim is one place in the queue. All waiters that give the same owner share one claim: they are granted
// together, with the same token. A waiter without an owner has a claim of its own.
//
// Times are nanoseconds of one monotonic clock; its zero does not matter. A hold is over at Holder.Expires; a waiter
// may still be granted the lock at its deadline, but not after it.
package lease

import (
	"math"

	"clouddragon/internal/list"
)

// Key names a lock.
type Key struct{ Acc, ID string }

// Shared is the limit of a reader: it allows any number of holders.
const Shared int32 = math.MaxInt32

// Holder is one holder of a lock.
type Holder struct {
	Owner   string // the id that the holder gave; "" if it gave none
	Token   int64
	Granted int64 // when it was granted
	Expires int64 // when it ends; if it rests, when its rest ends
	Least   int64 // it stays held until then, though it is given back or expires earlier; 0 if it does not
	Limit   int32 // the most holders that it allows, itself included; Shared allows any number
	Resting bool  // it was given back or expired, and stays held until Least; its token is void
}

// at returns the holder as it is at now, also if Expire has not handled its end yet. It reports false if the holder
// has ended.
func (h Holder) at(now int64) (Holder, bool) {
	if h.Expires > now {
		return h, true
	}
	if !h.Resting && h.Least > now {
		h.Resting, h.Expires = true, h.Least
		return h, true
	}
	return Holder{}, false
}

// Request asks for a lock.
type Request struct {
	Owner string // "" to take it without an id
	Token int64  // not 0: renew the hold with this token, acquire nothing
	Dur   int64  // how long to hold it, from the grant or the renewal on; more than 0
	Wait  int64  // how long to queue for it; 0 to be answered at once
	Limit int32  // the most holders to allow; 0 is 1, or with Token whatever the hold has
	Least int64  // how long it stays held from the grant on, though given back or expired earlier
}

func (r *Request) limit() int32 { return max(r.Limit, 1) }

// Waiter is a caller in the queue of a lock. The caller allocates it, and may use it again once it is answered or
// cancelled, and if the table keeps a journal, once the journal is forgotten or undone.
type Waiter struct {
	Data any // the caller's own

	claim    *claim // nil while it is in no queue
	in       list.Item[Waiter]
	since    int64
	deadline int64
	dur      int64
	least    int64
	place    int // in the schedule
}

// Outcome says what a step did for its caller.
type Outcome uint8

const (
	Granted        Outcome = iota + 1 // Acquire: the caller has the lock
	Renewed                           // Acquire: the caller had it and has it for longer
	Queued                            // Acquire: the waiter will be answered by a later event
	Held                              // Acquire: the present holders or those in line before the caller do not allow it
	OtherMode                         // Acquire: the caller holds it with another limit
	WaitsOtherwise                    // Acquire: a caller with the same owner waits for it with another limit
	Crowded                           // Acquire: as many wait as may
	NoToken                           // Acquire: there is no token for the grant; Result.Err says why
	NotHolder                         // Acquire with a token, Release, GiveBack: the caller does not hold it
	Several                           // Release without owner and token: several hold it without an owner
	NotLocked                         // Release, GiveBack: nobody holds it
	Released                          // Release, GiveBack: the hold has ended, or rests
	AtRest                            // Release: the hold was given back before and rests; nothing changed
	Kept                              // GiveBack: the hold goes on: it was renewed, or another caller was granted it too
)

// Result is what a step did.
type Result struct {
	Outcome Outcome
	// Holder is the caller's hold if the outcome is Granted, Renewed, Released, AtRest or Kept, and else the oldest
	// holder; the zero Holder if there is none.
	Holder Holder
	Err    error // of the token, if the outcome is NoToken
	// Events are all changes of holders and waits that the step made, in order: also what was due in the lock before
	// the step. A refusal may come with events of that kind, but has changed nothing itself. They are valid until the
	// next step: Acquire, Release, GiveBack or Expire.
	Events []Event
}

// EventKind says what an event is about.
type EventKind uint8

const (
	HolderGranted EventKind = iota + 1 // Waiters are answered with it; none if Acquire granted it at once
	HolderRenewed                      // Holder has the new end
	HolderRests                        // Holder is given back or expired, and stays held until its least time is over
	HolderEnded                        // Holder is as it was last
	WaitTimedOut                       // Waiters has the one whose time is over
	WaitRefused                        // Waiters are those of a claim for which there is no token; Err says why
)

// Why says why a holder rests or ended.
type Why uint8

// The reasons.
const (
	ByRelease Why = iota + 1
	ByForce
	ByExpiry
	ByGiveBack
)

// Event is one change that a step made.
type Event struct {
	Kind    EventKind
	Why     Why // of HolderRests and HolderEnded
	Key     Key
	Holder  Holder
	Waiters []*Waiter // they have left the queue
	Err     error     // of WaitRefused
}

// Waiting is a claim in the queue of a lock.
type Waiting struct {
	Owner string
	Since int64
	Limit int32
}

// Stats counts what a table holds and did.
type Stats struct {
	Held    int // locks that somebody holds
	Holders int // holders of all locks
	Waiting int // claims in all queues

	Granted   uint64 // grants, ever
	Expired   uint64 // holds that ended by their time, ever
	Forced    uint64 // holds that were ended by force, ever
	GivenBack uint64 // grants that nobody heard of, ever
	Refused   uint64 // Held, OtherMode, WaitsOtherwise and Crowded, ever
	TimedOut  uint64 // waits that ended by their time, ever
	NotHolder uint64 // renewals and releases by one that does not hold the lock, ever
}

// Add adds the counts of another table.
func (s *Stats) Add(o Stats) {
	s.Held += o.Held
	s.Holders += o.Holders
	s.Waiting += o.Waiting
	s.Granted += o.Granted
	s.Expired += o.Expired
	s.Forced += o.Forced
	s.GivenBack += o.GivenBack
	s.Refused += o.Refused
	s.TimedOut += o.TimedOut
	s.NotHolder += o.NotHolder
}
