package lease

// Table is a set of locks. It is not safe for concurrent use.
//
// A step first handles what is due in its own lock, so its result is right in any case. Call Expire until nothing is due
// before a step, so that other locks are handled too.
type Table struct {
	// MaxGrants is how many claims one step may take out of the queues and grant; 0: any number. The rest become due at
	// once, for Expire to grant. MaxGrants may change between steps.
	MaxGrants int

	token    func(k Key, fresh bool) (int64, error)
	limit    *Limit
	locks    map[Key]*lock
	claims   map[claimKey]*claim // those with an owner
	schedule schedule            // the ends of all holds and waits
	stats    Stats
	journal  journal
	unsorted []*lock // locks whose holders were restored out of order

	granted  int       // claims granted in this step
	vacated  int       // holders that ended in this step and were not replaced yet
	events   []Event   // events of this step
	answered []*Waiter // waiters in these events

	locksSpare   spares[lock]
	holdersSpare spares[holder]
	claimsSpare  spares[claim]
}

// Longer lists of events are not kept for reuse.
const maxKeptEvents = 256

// New returns an empty table. token returns the token of the next grant of a lock. It is called once for every grant, in
// order. fresh means that the new holder does not replace one that has ended in the same step. If token fails, the claim
// is refused and the next one is tried. Tables that share a limit share its places.
func New(token func(k Key, fresh bool) (int64, error), limit *Limit) *Table {
	return &Table{token: token, limit: limit, locks: map[Key]*lock{}, claims: map[claimKey]*claim{}}
}

// Acquire renews the caller's hold, which it finds by Token or by Owner. If there is none, it grants the lock, provided
// that the rule allows it and nobody waits. Otherwise it queues w, or refuses if Wait is 0. A caller that is Queued is
// answered by an event of a later step, unless it leaves with Cancel.
func (t *Table) Acquire(now int64, k Key, r Request, w *Waiter) Result {
	l := t.begin(now, k)
	if l != nil {
		if h := l.own(&r); h != nil {
			return t.renew(now, l, h, &r)
		}
	}
	limit := r.limit()
	switch {
	case r.Token != 0:
		t.stats.NotHolder++
		return t.result(NotHolder, l.oldest())
	case l == nil || l.queue.Len() == 0 && l.fits(limit):
		return t.grantNow(now, l, k, &r)
	case r.Wait <= 0:
		return t.refuse(Held, l)
	}
	var c *claim
	if r.Owner != "" {
		c = t.claims[claimKey{l, r.Owner}]
	}
	switch {
	case c != nil && c.limit != limit:
		return t.refuse(WaitsOtherwise, l)
	case c == nil && !t.limit.Take():
		return t.refuse(Crowded, l)
	case c == nil:
		c = t.addClaim(l, r.Owner, limit)
	}
	w.since, w.deadline, w.dur, w.least = now, now+r.Wait, r.Dur, r.Least
	t.addWaiter(c, w)
	return t.result(Queued, l.oldest())
}

func (t *Table) renew(now int64, l *lock, h *holder, r *Request) Result {
	if (r.Token == 0 || r.Limit != 0) && r.limit() != h.Limit {
		return t.refuse(OtherMode, l)
	}
	s := h.state
	s.renewed = true
	s.Expires = now + r.Dur
	if r.Least > 0 {
		s.Least = max(s.Least, s.Granted+r.Least)
	}
	t.changeHolder(h, s)
	t.event(HolderRenewed, l, &h.Holder)
	return t.result(Renewed, &h.Holder)
}

// grantNow grants a lock to a caller that has not queued. l is nil if the lock has no entry.
func (t *Table) grantNow(now int64, l *lock, k Key, r *Request) Result {
	token, err := t.token(k, t.vacated == 0)
	if err != nil {
		res := t.result(NoToken, l.oldest())
		res.Err = err
		return res
	}
	if l == nil {
		l = t.addLock(k)
	}
	h := t.grant(now, l, r.Owner, token, r.limit(), r.Dur, r.Least, 1)
	return t.result(Granted, &h.Holder)
}

// grant adds a holder to a lock for a number of callers, and appends the event.
func (t *Table) grant(now int64, l *lock, owner string, token int64, limit int32, dur, least int64, callers int) *holder {
	h := t.holdersSpare.get()
	h.Owner, h.Token, h.Limit = owner, token, limit
	h.Granted, h.Expires = now, now+dur
	if least > 0 {
		h.Least = now + least
	}
	h.callers = callers
	t.addHolder(l, h)
	t.vacated = max(0, t.vacated-1)
	t.stats.Granted++
	t.event(HolderGranted, l, &h.Holder)
	return h
}

// Release ends a hold, or makes it rest until its least time ends, and grants what becomes free. An owner or a token, if
// given, must be the hold's. A hold that was taken with an owner needs one of the two. With force all holds of all callers
// end at once.
func (t *Table) Release(now int64, k Key, owner string, token int64, force bool) Result {
	l := t.begin(now, k)
	if l == nil || l.holders.Len() == 0 {
		return t.result(NotLocked, nil)
	}
	if force {
		return t.releaseAll(now, l)
	}
	h, refused := l.releases(owner, token)
	switch {
	case h == nil:
		t.stats.NotHolder++
		return t.result(refused, l.oldest())
	case h.Resting:
		return t.result(AtRest, &h.Holder)
	case h.Least > now:
		t.rest(h, ByRelease)
		return t.result(Released, &h.Holder)
	}
	i := t.end(h, ByRelease)
	t.grantWaiting(now, l)
	return t.result(Released, &t.events[i].Holder)
}

func (t *Table) releaseAll(now int64, l *lock) Result {
	i := len(t.events)
	for h := l.holders.First(); h != nil; h = l.holders.First() {
		t.end(h, ByForce)
		t.stats.Forced++
	}
	t.grantWaiting(now, l)
	return t.result(Released, &t.events[i].Holder)
}

// GiveBack reports that a caller that was granted this token had left before it was answered. Once this was reported for
// all callers of the grant, the hold ends without a rest. The outcome is Kept if another caller is left, or if the hold was
// renewed since: then its owner has retried and was answered.
func (t *Table) GiveBack(now int64, k Key, token int64) Result {
	l := t.begin(now, k)
	if l == nil || l.holders.Len() == 0 {
		return t.result(NotLocked, nil)
	}
	h := l.byToken(token)
	if h == nil || h.Resting {
		return t.result(NotHolder, l.oldest())
	}
	if h.renewed || h.callers > 1 {
		s := h.state
		s.callers--
		t.changeHolder(h, s)
		return t.result(Kept, &h.Holder)
	}
	i := t.end(h, ByGiveBack)
	t.stats.GivenBack++
	t.grantWaiting(now, l)
	return t.result(Released, &t.events[i].Holder)
}

// Cancel takes w out of its queue. It returns false if w is in no queue because it was answered. It grants nothing: claims
// that w held up become due at once, for Expire to grant.
func (t *Table) Cancel(now int64, w *Waiter) bool {
	if w.claim == nil {
		return false
	}
	t.leave(now, w)
	return true
}

// leave takes w out of its queue. If the next claim may fit now, it schedules the lock.
func (t *Table) leave(now int64, w *Waiter) {
	c := w.claim
	l := c.lock
	t.removeWaiter(w)
	if c.waiters.Len() > 0 {
		return
	}
	first := l.queue.First() == c
	t.removeClaim(c)
	switch next := l.queue.First(); {
	case next == nil && l.due:
		t.clearDue(l)
	case next != nil && first && !l.due && l.fits(next.limit):
		t.setDue(l, now)
	}
	t.dropIfIdle(l)
}

// Next returns the earliest instant at which something is due. It returns false if nothing is scheduled.
func (t *Table) Next() (at int64, ok bool) {
	if len(t.schedule) == 0 {
		return 0, false
	}
	return t.schedule[0].at, true
}

// Expire handles the earliest thing that is due at now. So a waiter whose deadline is after the end of a hold is granted the
// lock, however late the call is. The duration of a new hold counts from now. The events are all changes; there may be
// none. Call it until it returns false.
func (t *Table) Expire(now int64) (events []Event, ok bool) {
	if !t.schedule.any(now) {
		return nil, false
	}
	t.clear()
	t.handle(now, t.schedule[0])
	return t.events, true
}

// handle carries out a due item.
func (t *Table) handle(now int64, d due) {
	l := d.lock
	switch {
	case d.holder != nil:
		h := d.holder
		if !h.Resting {
			t.stats.Expired++
		}
		if !h.Resting && h.Least > h.Expires {
			t.rest(h, ByExpiry)
			return
		}
		t.end(h, ByExpiry)
	case d.waiter != nil:
		from := len(t.answered)
		t.answered = append(t.answered, d.waiter)
		t.stats.TimedOut++
		t.event(WaitTimedOut, l, nil).Waiters = t.answered[from:]
		c := d.waiter.claim
		t.removeWaiter(d.waiter)
		if c.waiters.Len() > 0 {
			return
		}
		first := l.queue.First() == c
		t.removeClaim(c)
		if !first {
			return // no claim was held up by it
		}
	}
	t.grantWaiting(now, l)
}

// TimeOut takes all waiters whose wait has timed out at now out of their queues, and calls refuse with each. Use it while
// the end of a hold, which Expire would handle first, must be postponed. Like Cancel it grants nothing.
func (t *Table) TimeOut(now int64, refuse func(k Key, w *Waiter)) {
	for _, w := range t.schedule.waits(nil, 0, now) {
		k := w.claim.lock.key
		t.leave(now, w)
		t.stats.TimedOut++
		refuse(k, w)
	}
}

// Drain empties the queue of each lock for which of returns true, or every queue if of is nil. It calls
// refuse with each waiter.
func (t *Table) Drain(of func(k Key) bool, refuse func(k Key, w *Waiter)) {
	if t.stats.Waiting == 0 {
		return
	}
	for k, l := range t.locks {
		if of != nil && !of(k) {
			continue
		}
		if l.due {
			t.clearDue(l)
		}
		for c := l.queue.First(); c != nil; c = l.queue.First() {
			for w := c.waiters.First(); w != nil; w = c.waiters.First() {
				t.removeWaiter(w)
				refuse(k, w)
			}
			t.removeClaim(c)
		}
		t.dropIfIdle(l)
	}
}

// rest makes a hold rest until its least time ends.
func (t *Table) rest(h *holder, why Why) {
	s := h.state
	s.Resting, s.Expires = true, s.Least
	t.changeHolder(h, s)
	t.event(HolderRests, h.lock, &h.Holder).Why = why
}

// end ends a hold and returns the place of its event.
func (t *Table) end(h *holder, why Why) int {
	t.event(HolderEnded, h.lock, &h.Holder).Why = why
	t.removeHolder(h)
	t.vacated++
	return len(t.events) - 1
}

// grantWaiting grants the lock to as many of the first claims in its queue as the rule and MaxGrants allow.
func (t *Table) grantWaiting(now int64, l *lock) {
	if l.due {
		t.clearDue(l)
	}
	for c := l.queue.First(); c != nil && l.fits(c.limit); c = l.queue.First() {
		if t.MaxGrants > 0 && t.granted >= t.MaxGrants {
			t.setDue(l, now)
			return
		}
		token, err := t.token(l.key, t.vacated == 0)
		owner, limit := c.owner, c.limit
		var dur, least int64
		from := len(t.answered)
		for w := c.waiters.First(); w != nil; w = c.waiters.First() {
			dur, least = max(dur, w.dur), max(least, w.least)
			t.answered = append(t.answered, w)
			t.removeWaiter(w)
		}
		t.removeClaim(c)
		waiters := t.answered[from:]
		if err != nil {
			e := t.event(WaitRefused, l, nil)
			e.Waiters, e.Err = waiters, err
			continue
		}
		t.granted++
		t.grant(now, l, owner, token, limit, dur, least, len(waiters))
		t.events[len(t.events)-1].Waiters = waiters
	}
	t.dropIfIdle(l)
}

func (t *Table) refuse(o Outcome, l *lock) Result {
	t.stats.Refused++
	return t.result(o, l.oldest())
}

// result returns the result of a step. The holder may be nil.
func (t *Table) result(o Outcome, h *Holder) (res Result) {
	res.Outcome, res.Events = o, t.events
	if h != nil {
		res.Holder = *h
	}
	return res
}

// event appends an event about a holder, which may be nil.
func (t *Table) event(kind EventKind, l *lock, h *Holder) *Event {
	if n := len(t.events); n < cap(t.events) {
		t.events = t.events[:n+1] // clear has zeroed it
	} else {
		t.events = append(t.events, Event{})
	}
	e := &t.events[len(t.events)-1]
	e.Kind, e.Key = kind, l.key
	if h != nil {
		e.Holder = *h
	}
	return e
}

// clear removes the events of the last step.
func (t *Table) clear() {
	t.restored()
	if cap(t.events) > maxKeptEvents {
		t.events = nil
	}
	if cap(t.answered) > maxKeptEvents {
		t.answered = nil
	}
	clear(t.events)
	clear(t.answered)
	t.events, t.answered = t.events[:0], t.answered[:0]
	t.granted, t.vacated = 0, 0
}
