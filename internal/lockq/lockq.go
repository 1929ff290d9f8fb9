// Package lockq decides who holds a lock, who waits for it and when that ends. It does no I/O, starts no
// goroutine and reads no clock: every call says what time it is.
//
//	free ── Acquire ─────────────────────────────────► held
//	held ── Acquire by its owner or token ───────────► held, longer, same token
//	held ── Acquire by another ──────────────────────► held, the other refused or queued
//	held ── Release, GiveBack or its time is over ───► held by the next in the queue, else free
//
// Times are nanoseconds of one monotonic clock; its zero does not matter. A hold is over at Hold.Expires; a waiter
// may still be granted the lock at its deadline, but not after it.
package lockq

// Key names a lock.
type Key struct{ Acc, ID string }

// Hold is a lock in somebody's hands. The zero Hold means that nobody has it.
type Hold struct {
	Owner   string // the id that the holder gave; "" if it gave none
	Token   int64
	Expires int64 // the instant at which the lock is free again
}

// Request asks for a lock.
type Request struct {
	Owner string // "" to take it without an id
	Token int64  // not 0: renew the hold with this token, acquire nothing
	Dur   int64  // how long to hold it, from the grant or the renewal on
	Wait  int64  // how long to queue for it; 0 to be answered at once
}

// Waiter is a place in the queue of a lock. The caller allocates it, and may use it again once it is answered or
// cancelled.
type Waiter struct {
	Data any // the caller's own

	owner      string
	dur        int64
	deadline   int64
	lock       *lock // nil while it is in no queue
	prev, next *Waiter
	place      int // in the schedule
}

// Outcome says what a step did.
type Outcome uint8

const (
	Granted   Outcome = iota + 1 // Acquire: the lock was free, the caller has it
	Renewed                      // Acquire: the caller had it and has it for longer
	Queued                       // Acquire: the waiter will be answered by a later step
	Held                         // Acquire: another holds it, or others are in line before the caller
	Crowded                      // Acquire: as many wait as may
	NotHolder                    // Acquire with a token, Release: the caller does not hold it
	NotLocked                    // Release: nobody holds it
	Released                     // Release: free, or granted to the next waiter
	Expired                      // Expire: the hold's time was over; free, or granted to the next waiter
	TimedOut                     // Expire: the waiter's time was over; the lock is as it was
)

// Result is what a step did to one lock. A refusal (Held, Crowded, NotHolder, NotLocked) has changed nothing.
type Result struct {
	Outcome Outcome
	Hold    Hold    // the lock's hold after the step; zero if nobody has it
	Waiter  *Waiter // the waiter that the step answered: granted Hold, or refused if TimedOut; else nil
}

// lock is a lock that is held, or has waiters, or both; no other one has an entry in the table.
type lock struct {
	key         Key
	hold        Hold // zero unless held
	held        bool
	renewed     bool // since it was granted
	place       int  // of the hold's end in the schedule, if held
	first, last *Waiter
	waiting     int
}

// holds reports whether somebody has the lock at now.
func (l *lock) holds(now int64) bool { return l.held && l.hold.Expires > now }

// heir returns the first in line that was still waiting at the instant over, when the lock came free. Past that instant
// are only waiters that Expire has not refused yet: none, if it is called before every step.
func (l *lock) heir(over int64) *Waiter {
	w := l.first
	for w != nil && w.deadline < over {
		w = w.next
	}
	return w
}

// Stats counts what a table holds and did.
type Stats struct {
	Held    int    // locks that somebody has
	Waiting int    // waiters in all queues
	Expired uint64 // holds that ended by their time, ever
}

// Table is a set of locks. It is not safe for concurrent use.
//
// Before a step at some instant, call Expire for it until nothing is due. A hold that is over though Expire has not come
// to it counts as none: the lock is the next waiter's, or free if there is none.
type Table struct {
	token    func() int64
	limit    *Limit
	locks    map[Key]*lock
	schedule schedule // what ends when: every hold, every wait
	stats    Stats
	spare    []*lock // for the next locks, so that a lock that comes and goes allocates nothing
}

// A burst of locks is not kept for ever.
const maxSpare = 256

// New returns an empty table. The function token answers the token of the next grant; it is called once for every grant,
// in their order. A grant that cannot be kept, because there is no token or no room, is undone by Release with force. Tables
// that share a limit share its waiters.
func New(token func() int64, limit *Limit) *Table {
	return &Table{token: token, limit: limit, locks: map[Key]*lock{}}
}

// Acquire grants the lock if it is free, renews it if the caller holds it, by Token or else by Owner, and otherwise
// queues w, or refuses if Wait is 0. A caller that is Queued gets its answer from a later Release, GiveBack or Expire
// that returns w, unless it leaves by Cancel. Two requests of one owner that both wait are two places in the queue.
func (t *Table) Acquire(now int64, k Key, r Request, w *Waiter) Result {
	l := t.locks[k]
	switch {
	case l != nil && l.holds(now) && l.mayRenew(r):
		l.hold.Expires = now + r.Dur
		l.renewed = true
		t.schedule.move(l.place, l.hold.Expires)
		return Result{Outcome: Renewed, Hold: l.hold}
	case r.Token != 0:
		return Result{Outcome: NotHolder, Hold: l.holdAt(now)}
	case l == nil:
		l = t.add(k)
		t.grant(now, l, r.Owner, r.Dur)
		return Result{Outcome: Granted, Hold: l.hold}
	case !l.holds(now) && l.heir(l.over(now)) == nil:
		if l.held {
			t.stats.Expired++
		}
		t.grant(now, l, r.Owner, r.Dur)
		return Result{Outcome: Granted, Hold: l.hold}
	case r.Wait <= 0:
		return Result{Outcome: Held, Hold: l.holdAt(now)}
	case !t.limit.take():
		return Result{Outcome: Crowded, Hold: l.holdAt(now)}
	}
	t.enqueue(l, w, r, now+r.Wait)
	return Result{Outcome: Queued, Hold: l.holdAt(now)}
}

func (l *lock) mayRenew(r Request) bool {
	if r.Token != 0 {
		return r.Token == l.hold.Token
	}
	return r.Owner != "" && r.Owner == l.hold.Owner
}

// over is the instant at which the lock, which nobody has at now, came free.
func (l *lock) over(now int64) int64 {
	if l.held {
		return l.hold.Expires
	}
	return now
}

// holdAt returns the hold at now. It takes a nil lock, for one that has no entry.
func (l *lock) holdAt(now int64) Hold {
	if l == nil || !l.holds(now) {
		return Hold{}
	}
	return l.hold
}

// Release ends the hold and grants the lock to the next waiter. An owner or a token that is given must be the hold's; a hold
// that was taken with an owner needs one of the two. With force neither is asked for.
func (t *Table) Release(now int64, k Key, owner string, token int64, force bool) Result {
	l := t.locks[k]
	if l == nil || !l.holds(now) {
		return Result{Outcome: NotLocked}
	}
	if !force && !l.mayRelease(owner, token) {
		return Result{Outcome: NotHolder, Hold: l.hold}
	}
	return t.pass(now, now, l, Released)
}

func (l *lock) mayRelease(owner string, token int64) bool {
	if token != 0 && token != l.hold.Token || owner != "" && owner != l.hold.Owner {
		return false
	}
	return token != 0 || owner == l.hold.Owner
}

// GiveBack ends a hold that was granted to a waiter which left before it was told. A hold that was renewed since is kept,
// and refused as NotHolder: its owner asked again, and was told.
func (t *Table) GiveBack(now int64, k Key, token int64) Result {
	l := t.locks[k]
	if l == nil || !l.holds(now) {
		return Result{Outcome: NotLocked}
	}
	if l.hold.Token != token || l.renewed {
		return Result{Outcome: NotHolder, Hold: l.hold}
	}
	return t.pass(now, now, l, Released)
}

// Cancel takes w out of its queue. It reports false if w was in none: it has been answered.
func (t *Table) Cancel(w *Waiter) bool {
	l := w.lock
	if l == nil {
		return false
	}
	t.dequeue(w)
	t.dropIfIdle(l)
	return true
}

// Next returns the earliest instant at which something ends; ok is false if nothing will.
func (t *Table) Next() (at int64, ok bool) {
	if len(t.schedule) == 0 {
		return 0, false
	}
	return t.schedule[0].at, true
}

// Expire does the first of what is due at now, in the order of the instants at which it was due, so that a hold
// that ended before a waiter gave up is granted to that waiter however late the call is. A hold that it grants is counted
// from now. Call it until ok is false.
func (t *Table) Expire(now int64) (k Key, r Result, ok bool) {
	if len(t.schedule) == 0 || t.schedule[0].at > now {
		return Key{}, Result{}, false
	}
	l, w := t.schedule[0].lock, t.schedule[0].waiter
	k = l.key
	if w == nil {
		t.stats.Expired++
		return k, t.pass(now, l.hold.Expires, l, Expired), true
	}
	t.dequeue(w)
	r = Result{Outcome: TimedOut, Hold: l.holdAt(now), Waiter: w}
	t.dropIfIdle(l)
	return k, r, true
}

// TimeOut takes all waiters whose time is over at now out of their queues, and calls refuse with each. It is for when
// the end of a hold, which Expire does before them, has to be put off.
func (t *Table) TimeOut(now int64, refuse func(k Key, w *Waiter)) {
	for _, w := range t.schedule.waits(nil, 0, now) {
		l := w.lock
		k := l.key
		t.dequeue(w)
		t.dropIfIdle(l)
		refuse(k, w)
	}
}

// Drain empties every queue, and calls refuse with each waiter that was in one.
func (t *Table) Drain(refuse func(k Key, w *Waiter)) {
	for k, l := range t.locks {
		for w := l.first; w != nil; w = l.first {
			t.dequeue(w)
			refuse(k, w)
		}
		t.dropIfIdle(l)
	}
}

// Holder returns who has the lock at now and how many wait for it; ok is false if nobody has it.
func (t *Table) Holder(now int64, k Key) (h Hold, waiting int, ok bool) {
	l := t.locks[k]
	if l == nil || !l.holds(now) {
		return Hold{}, 0, false
	}
	return l.hold, l.waiting, true
}

// Restore puts back a hold that outlived the process. Its lock must not be in the table yet, and token must go on above
// the hold's.
func (t *Table) Restore(k Key, h Hold) {
	t.start(t.add(k), h)
}

// Stats returns the table's counters.
func (t *Table) Stats() Stats { return t.stats }

// pass ends the hold of l, which came free at the instant over, and grants the lock to the next in line.
func (t *Table) pass(now, over int64, l *lock, o Outcome) Result {
	w := l.heir(over)
	if w == nil {
		t.schedule.remove(l.place)
		l.hold, l.held = Hold{}, false
		t.stats.Held--
		t.dropIfIdle(l)
		return Result{Outcome: o}
	}
	t.dequeue(w)
	t.grant(now, l, w.owner, w.dur)
	return Result{Outcome: o, Hold: l.hold, Waiter: w}
}

func (t *Table) grant(now int64, l *lock, owner string, dur int64) {
	t.start(l, Hold{Owner: owner, Token: t.token(), Expires: now + dur})
}

func (t *Table) start(l *lock, h Hold) {
	l.hold, l.renewed = h, false
	if l.held {
		t.schedule.move(l.place, h.Expires)
		return
	}
	l.held = true
	t.stats.Held++
	t.schedule.add(due{at: h.Expires, lock: l})
}

// enqueue puts w, for which a place has been taken from the limit, at the end of the queue.
func (t *Table) enqueue(l *lock, w *Waiter, r Request, deadline int64) {
	w.owner, w.dur, w.deadline = r.Owner, r.Dur, deadline
	w.lock, w.prev, w.next = l, l.last, nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.waiting++
	t.stats.Waiting++
	t.schedule.add(due{at: deadline, lock: l, waiter: w})
}

func (t *Table) dequeue(w *Waiter) {
	l := w.lock
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.lock, w.prev, w.next = nil, nil, nil
	l.waiting--
	t.stats.Waiting--
	t.schedule.remove(w.place)
	t.limit.give()
}

func (t *Table) add(k Key) *lock {
	var l *lock
	if n := len(t.spare); n > 0 {
		l = t.spare[n-1]
		t.spare = t.spare[:n-1]
	} else {
		l = new(lock)
	}
	l.key = k
	t.locks[k] = l
	return l
}

func (t *Table) dropIfIdle(l *lock) {
	if l.held || l.first != nil {
		return
	}
	delete(t.locks, l.key)
	*l = lock{}
	if len(t.spare) < maxSpare {
		t.spare = append(t.spare, l)
	}
}
