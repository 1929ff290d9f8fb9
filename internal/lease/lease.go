// Package lease decides who holds a lock, who waits for it and when that ends. It does no I/O, starts no goroutine
// and reads no clock: every call passes the time.
//
// A lock may have several holders. Each allows a number of holders: a plain lock allows one, a semaphore its limit,
// and a reader any number. One rule covers them all: a grant never makes more holders than it allows itself, and never
// more than any current holder allows. The first claim in the queue is never overtaken, so a waiting writer holds up
// the readers behind it.
//
//	free ─── Acquire ──────────────────────────────────► held
//	held ─── Acquire by its owner or token ────────────► held for longer, same token
//	held ─── Acquire by another ───────────────────────► one more holder if the rule allows it; otherwise refused or queued
//	held ─── Release, or the hold expires ─────────────► resting until the end of its least time; otherwise ended
//	held ─── Release by force, GiveBack ───────────────► ended
//	ended ─────────────────────────────────────────────► the first claims in the queue are granted, as many as fit
//
// A claim is one place in the queue. All waiters with the same owner share one claim: they are granted the lock together,
// with the same token. A waiter without an owner has its own claim.
//
// Times are nanoseconds of one monotonic clock with any zero. A hold ends at Holder.Expires. A waiter may still be
// granted the lock at its deadline, but not after it.
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
	Least   int64 // end of the least time: the lock stays held until then even after an unlock or expiry; 0: none
	Limit   int32 // the most holders that it allows, itself included; Shared allows any number
	Resting bool  // it was unlocked or expired, and stays held until Least; its token is void
}

// at returns the state of the holder at now, even if Expire has not handled its end yet. It returns false if the hold
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
	Token int64  // if not 0, renew the hold with this token and acquire nothing
	Dur   int64  // how long to hold it, from the grant or the renewal on; more than 0
	Wait  int64  // how long to queue for it; 0 to be answered at once
	Limit int32  // the most holders to allow; 0 is 1, or with Token the limit of the hold
	Least int64  // how long it stays held from the grant on, even if unlocked or expired earlier
}

func (r *Request) limit() int32 { return max(r.Limit, 1) }

// Waiter is a caller in the queue of a lock. The caller allocates it. It may be reused after it is answered or
// cancelled, and, if the table keeps a journal, after Forget or Undo.
type Waiter struct {
	Data any // for the caller

	claim    *claim // nil: not in a queue
	in       list.Item[Waiter]
	since    int64
	deadline int64
	dur      int64
	least    int64
	place    int // in the schedule
}

// Outcome is what a step did for its caller.
type Outcome uint8

const (
	Granted        Outcome = iota + 1 // Acquire: the caller has the lock
	Renewed                           // Acquire: the caller had it and has it for longer
	Queued                            // Acquire: the waiter will be answered by a later event
	Held                              // Acquire: the current holders or the claims before the caller's do not allow it
	OtherMode                         // Acquire: the caller holds it with another limit
	WaitsOtherwise                    // Acquire: a caller with the same owner waits for it with another limit
	Crowded                           // Acquire: the limit on waiters is reached
	NoToken                           // Acquire: there is no token for the grant; Result.Err says why
	NotHolder                         // Acquire with a token, Release, GiveBack: the caller does not hold it
	Several                           // Release without owner and token: several holders have no owner
	NotLocked                         // Release, GiveBack: nobody holds it
	Released                          // Release, GiveBack: the hold has ended, or rests
	AtRest                            // Release: the hold was released before and rests; nothing changed
	Kept                              // GiveBack: the hold continues: it was renewed, or another caller was granted it too
)

// Result is what a step did.
type Result struct {
	Outcome Outcome
	// Holder is the caller's hold if the outcome is Granted, Renewed, Released, AtRest or Kept. Otherwise it is the
	// oldest holder, or the zero Holder if there is none.
	Holder Holder
	Err    error // why there is no token, if the outcome is NoToken
	// Events are all changes of holders and waits that the step made, in order. They include what was due in the lock
	// before the step, so a refusal may have events although it changes nothing itself. They are valid until the next
	// Acquire, Release, GiveBack or Expire.
	Events []Event
}

// EventKind says what an event is about.
type EventKind uint8

const (
	HolderGranted EventKind = iota + 1 // Waiters are answered with it; none if Acquire granted it at once
	HolderRenewed                      // Holder has the new end
	HolderRests                        // Holder was released or expired, and stays held until its least time ends
	HolderEnded                        // Holder is its last state
	WaitTimedOut                       // Waiters has the waiter whose wait timed out
	WaitRefused                        // Waiters are those of a claim for which there is no token; Err says why
)

// Why is the reason why a holder rests or ended.
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
	Why     Why // for HolderRests and HolderEnded
	Key     Key
	Holder  Holder
	Waiters []*Waiter // they have left the queue
	Err     error     // for WaitRefused
}

// Waiting is a claim in the queue of a lock.
type Waiting struct {
	Owner string
	Since int64
	Limit int32
}

// Stats are the counts of a table.
type Stats struct {
	Held    int // locks that somebody holds
	Holders int // holders of all locks
	Waiting int // claims in all queues

	// Totals.
	Granted   uint64 // grants
	Expired   uint64 // holds that expired
	Forced    uint64 // holds that were ended by force
	GivenBack uint64 // grants whose caller had left
	Refused   uint64 // outcomes Held, OtherMode, WaitsOtherwise and Crowded
	TimedOut  uint64 // waits that timed out
	NotHolder uint64 // renewals and releases by callers that do not hold the lock
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
