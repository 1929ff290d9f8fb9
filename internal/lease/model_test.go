package lease

import (
	"errors"
	"fmt"
	"slices"
)

// model implements the contract with plain slices, without regard to cost: a list of holders and a list of claims for
// each lock. Where the contract leaves a choice, namely in what order things end that end at the same instant, it follows
// the events of the table.
type model struct {
	now    int64
	tokens int64
	fail   bool // the next grant gets no token
	limit  int
	stats  Stats
	locks  map[Key]*modelLock
}

type modelLock struct {
	holders []modelHolder
	queue   []modelClaim
	due     int64 // since when the first claim may fit; -1: not known
}

type modelHolder struct {
	Holder
	callers int
	renewed bool
}

type modelClaim struct {
	owner   string
	limit   int32
	waiters []modelWaiter
}

type modelWaiter struct {
	since, dur, least, deadline int64
	w                           *Waiter
}

var errNoToken = errors.New("no token")

// copy returns a deep copy.
func (m *model) copy() *model {
	c := *m
	c.locks = map[Key]*modelLock{}
	for k, l := range m.locks {
		d := &modelLock{slices.Clone(l.holders), slices.Clone(l.queue), l.due}
		for i := range d.queue {
			d.queue[i].waiters = slices.Clone(d.queue[i].waiters)
		}
		c.locks[k] = d
	}
	return &c
}

func (m *model) lock(k Key) *modelLock {
	if m.locks[k] == nil {
		m.locks[k] = &modelLock{due: -1}
	}
	return m.locks[k]
}

// fits is the rule, word for word.
func (l *modelLock) fits(limit int32) bool {
	after := len(l.holders) + 1
	if int64(after) > int64(limit) {
		return false
	}
	for _, h := range l.holders {
		if int64(after) > int64(h.Limit) {
			return false
		}
	}
	return true
}

func (l *modelLock) oldest() Holder {
	if len(l.holders) == 0 {
		return Holder{}
	}
	return l.holders[0].Holder
}

func (l *modelLock) find(is func(modelHolder) bool) int { return slices.IndexFunc(l.holders, is) }

func (m *model) token() (int64, error) {
	if m.fail {
		m.fail = false
		return 0, errNoToken
	}
	m.tokens++
	return m.tokens, nil
}

// add adds a holder.
func (m *model) add(l *modelLock, owner string, token int64, limit int32, dur, least int64, callers int) Holder {
	h := Holder{Owner: owner, Token: token, Granted: m.now, Expires: m.now + dur, Limit: limit}
	if least > 0 {
		h.Least = m.now + least
	}
	l.holders = append(l.holders, modelHolder{Holder: h, callers: callers})
	m.stats.Granted++
	return h
}

// pump grants the lock to the first in line while the rule allows it.
func (m *model) pump(k Key, l *modelLock) (events []Event) {
	l.due = -1
	for len(l.queue) > 0 && l.fits(l.queue[0].limit) {
		c := l.queue[0]
		l.queue = l.queue[1:]
		e := Event{Kind: HolderGranted, Key: k}
		var dur, least int64
		for _, w := range c.waiters {
			dur, least = max(dur, w.dur), max(least, w.least)
			e.Waiters = append(e.Waiters, w.w)
		}
		token, err := m.token()
		if err != nil {
			e.Kind, e.Err = WaitRefused, err
		} else {
			e.Holder = m.add(l, c.owner, token, c.limit, dur, least, len(c.waiters))
		}
		events = append(events, e)
	}
	return events
}

// end ends holder i.
func (m *model) end(k Key, l *modelLock, i int, why Why) Event {
	h := l.holders[i].Holder
	l.holders = slices.Delete(slices.Clone(l.holders), i, i+1)
	return Event{Kind: HolderEnded, Why: why, Key: k, Holder: h}
}

// dueItem is something that is due. It is the lock itself if i is -1 and w is nil.

type dueItem struct {
	at int64
	k  Key
	i  int // of the holder, or -1
	w  *Waiter
}

// dues returns what is due first, in one lock or, with a zero key, in all locks. It returns several items if they are due
// at the same instant.
func (m *model) dues(of Key) (first []dueItem) {
	note := func(d dueItem) {
		switch {
		case d.at > m.now:
		case len(first) == 0 || d.at < first[0].at || d.at == first[0].at && d.w == nil && first[0].w != nil:
			first = []dueItem{d}
		case d.at == first[0].at && (d.w == nil) == (first[0].w == nil):
			first = append(first, d)
		}
	}
	for k, l := range m.locks {
		if of != (Key{}) && k != of {
			continue
		}
		for i, h := range l.holders {
			note(dueItem{h.Expires, k, i, nil})
		}
		if l.due >= 0 {
			note(dueItem{l.due, k, -1, nil})
		}
		for _, c := range l.queue {
			for _, w := range c.waiters {
				note(dueItem{w.deadline, k, -1, w.w})
			}
		}
	}
	return first
}

// handle carries out a due item.
func (m *model) handle(d dueItem) (events []Event) {
	l := m.locks[d.k]
	switch {
	case d.i >= 0:
		h := l.holders[d.i]
		if !h.Resting {
			m.stats.Expired++
			if h.Least > h.Expires {
				h.Resting, h.Expires = true, h.Least
				l.holders[d.i] = h
				return []Event{{Kind: HolderRests, Why: ByExpiry, Key: d.k, Holder: h.Holder}}
			}
		}
		events = append(events, m.end(d.k, l, d.i, ByExpiry))
	case d.w != nil:
		m.stats.TimedOut++
		first := m.drop(l, d.w)
		events = append(events, Event{Kind: WaitTimedOut, Key: d.k, Waiters: []*Waiter{d.w}})
		if !first {
			return events
		}
	}
	return append(events, m.pump(d.k, l)...)
}

// drop takes a waiter out of its queue and reports whether that was the first claim's last waiter.
func (m *model) drop(l *modelLock, w *Waiter) (first bool) {
	for i, c := range l.queue {
		j := slices.IndexFunc(c.waiters, func(x modelWaiter) bool { return x.w == w })
		if j < 0 {
			continue
		}
		l.queue[i].waiters = slices.Delete(slices.Clone(c.waiters), j, j+1)
		if len(c.waiters) > 1 {
			return false
		}
		l.queue = slices.Delete(slices.Clone(l.queue), i, i+1)
		return i == 0
	}
	return false
}

// leave does what Cancel and TimeOut do: it grants nothing.
func (m *model) leave(w *Waiter) bool {
	for _, l := range m.locks {
		for _, c := range l.queue {
			if !slices.ContainsFunc(c.waiters, func(x modelWaiter) bool { return x.w == w }) {
				continue
			}
			first := m.drop(l, w)
			if len(l.queue) == 0 {
				l.due = -1
			} else if first && l.due < 0 && l.fits(l.queue[0].limit) {
				l.due = m.now
			}
			return true
		}
	}
	return false
}

// follow carries out what is due in one lock or in all. If several items are due at the same instant, the events give the
// order. It returns the remaining events.
func (m *model) follow(of Key, events []Event) ([]Event, error) {
	for {
		first := m.dues(of)
		if len(first) == 0 {
			return events, nil
		}
		d := first[0]
		if len(events) > 0 {
			e := events[0]
			if i := slices.IndexFunc(first, func(d dueItem) bool {
				switch {
				case d.k != e.Key:
					return false
				case d.i >= 0:
					return m.locks[d.k].holders[d.i].Token == e.Holder.Token
				case d.w != nil:
					return len(e.Waiters) == 1 && e.Waiters[0] == d.w
				}
				return e.Kind == HolderGranted || e.Kind == WaitRefused
			}); i >= 0 {
				d = first[i]
			}
		}
		want := m.handle(d)
		if len(events) < len(want) || !slices.EqualFunc(events[:len(want)], want, sameEvent) {
			return nil, fmt.Errorf("due at %d: got %q, want %q", d.at, describe(events), describe(want))
		}
		events = events[len(want):]
	}
}

func sameEvent(a, b Event) bool {
	return a.Kind == b.Kind && a.Why == b.Why && a.Key == b.Key && a.Holder == b.Holder && a.Err == b.Err && slices.Equal(a.Waiters, b.Waiters)
}

func (m *model) waiting() (n int) {
	for _, l := range m.locks {
		n += len(l.queue)
	}
	return n
}

func (m *model) acquire(k Key, r Request, w *Waiter) (o Outcome, h Holder, events []Event) {
	l := m.lock(k)
	limit := max(1, r.Limit)
	own := l.find(func(h modelHolder) bool {
		if r.Token != 0 {
			return h.Token == r.Token && !h.Resting
		}
		return r.Owner != "" && h.Owner == r.Owner && !h.Resting
	})
	if own >= 0 {
		h := &l.holders[own]
		if h.Limit != limit && (r.Token == 0 || r.Limit != 0) {
			m.stats.Refused++
			return OtherMode, l.oldest(), nil
		}
		h.Expires, h.renewed = m.now+r.Dur, true
		if r.Least > 0 {
			h.Least = max(h.Least, h.Granted+r.Least)
		}
		return Renewed, h.Holder, []Event{{Kind: HolderRenewed, Key: k, Holder: h.Holder}}
	}
	if r.Token != 0 {
		m.stats.NotHolder++
		return NotHolder, l.oldest(), nil
	}
	if len(l.queue) == 0 && l.fits(limit) {
		token, err := m.token()
		if err != nil {
			return NoToken, l.oldest(), nil
		}
		h := m.add(l, r.Owner, token, limit, r.Dur, r.Least, 1)
		return Granted, h, []Event{{Kind: HolderGranted, Key: k, Holder: h}}
	}
	mine := slices.IndexFunc(l.queue, func(c modelClaim) bool { return r.Owner != "" && c.owner == r.Owner })
	add := modelWaiter{m.now, r.Dur, r.Least, m.now + r.Wait, w}
	switch {
	case r.Wait == 0:
		o = Held
	case mine >= 0 && l.queue[mine].limit != limit:
		o = WaitsOtherwise
	case mine >= 0:
		l.queue[mine].waiters = append(slices.Clone(l.queue[mine].waiters), add)
		return Queued, l.oldest(), nil
	case m.waiting() >= m.limit:
		o = Crowded
	default:
		l.queue = append(l.queue, modelClaim{r.Owner, limit, []modelWaiter{add}})
		return Queued, l.oldest(), nil
	}
	m.stats.Refused++
	return o, l.oldest(), nil
}

func (m *model) release(k Key, owner string, token int64, force bool) (o Outcome, h Holder, events []Event) {
	l := m.lock(k)
	if len(l.holders) == 0 {
		return NotLocked, Holder{}, nil
	}
	if force {
		h := l.oldest()
		for len(l.holders) > 0 {
			events = append(events, m.end(k, l, 0, ByForce))
			m.stats.Forced++
		}
		return Released, h, append(events, m.pump(k, l)...)
	}
	var fits [2][]int // those that do not rest and those that do
	for i, h := range l.holders {
		if token != 0 && h.Token != token || owner != "" && h.Owner != owner || token == 0 && owner == "" && h.Owner != "" {
			continue
		}
		rests := 0
		if h.Resting {
			rests = 1
		}
		fits[rests] = append(fits[rests], i)
	}
	switch {
	case len(fits[0]) > 1:
		m.stats.NotHolder++
		return Several, l.oldest(), nil
	case len(fits[0]) == 0 && len(fits[1]) > 0:
		return AtRest, l.holders[fits[1][0]].Holder, nil
	case len(fits[0]) == 0:
		m.stats.NotHolder++
		return NotHolder, l.oldest(), nil
	}
	i := fits[0][0]
	if x := &l.holders[i]; x.Least > m.now {
		x.Resting, x.Expires = true, x.Least
		return Released, x.Holder, []Event{{Kind: HolderRests, Why: ByRelease, Key: k, Holder: x.Holder}}
	}
	e := m.end(k, l, i, ByRelease)
	return Released, e.Holder, append([]Event{e}, m.pump(k, l)...)
}

func (m *model) giveBack(k Key, token int64) (o Outcome, h Holder, events []Event) {
	l := m.lock(k)
	if len(l.holders) == 0 {
		return NotLocked, Holder{}, nil
	}
	i := l.find(func(h modelHolder) bool { return h.Token == token && !h.Resting })
	if i < 0 {
		return NotHolder, l.oldest(), nil
	}
	x := &l.holders[i]
	x.callers--
	if x.renewed || x.callers > 0 {
		return Kept, x.Holder, nil
	}
	m.stats.GivenBack++
	e := m.end(k, l, i, ByGiveBack)
	return Released, e.Holder, append([]Event{e}, m.pump(k, l)...)
}
