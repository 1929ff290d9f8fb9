package crashtest

import (
	"fmt"
	"slices"
	"time"
)

// lockBook is what is known about a lock or a mutex.
type lockBook struct {
	holds  []*hold
	owners map[string]span // of possible grants without an answer: when they can end
}

// hold is one grant. Every attempt has its own owner.
type hold struct {
	token   int64
	owner   string
	granted time.Time // when it was answered
	sure    time.Time // it lasts until then at least
	ends    span      // when it ends if nobody frees it
	freed   bool      // its unlock was acknowledged
}

// span is from the earliest to the latest possible instant of an event.
type span struct{ from, to time.Time }

// grace is how far the clocks of a client and the server may appear to differ, because a
// process may have to wait for a processor.
const grace = 100 * time.Millisecond

// promotionGrace is how much later locks may end after a promotion: five seconds, and what the standby
// takes for a clock that is ahead if its few beats came late on a busy machine.
const promotionGrace = 6 * time.Second

func (l *ledger) beginLock() entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin(&l.tokens)
}

// mutexOf names a mutex of one server. Another primary has its own mutexes, which are all free
// when it takes over.
func (l *ledger) mutexOf(server, target string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%s of term %d of %s", target, l.term, server)
}

// mayFailOver notes that from now on another server may take over, or has taken over. Holds of
// mutexes may be lost.
func (l *ledger) mayFailOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term++
	for _, b := range l.mutexes {
		for _, h := range b.holds {
			h.sure = minTime(h.sure, time.Now())
		}
	}
}

// endLock notes a grant, and returns it.
func (l *ledger) endLock(api, target, owner string, dur time.Duration, e entry, o outcome, token int64) *hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, what := book(l.locks, target), target
	if api == "mlock" {
		b, what = book(l.mutexes, target), "" // no disk needed
	}
	if b.owners == nil {
		b.owners = make(map[string]span)
	}
	l.end(&e, o == done, what)
	switch o {
	case lost:
		b.owners[owner] = span{e.at.Add(dur), e.until.Add(dur)}
	case done:
		l.take(&l.tokens, token, &e, target)
		h := &hold{token: token, owner: owner, granted: e.until, ends: span{e.at.Add(dur), e.until.Add(dur)}}
		h.sure = h.ends.from.Add(-grace)
		b.holds = append(b.holds, h)
		return h
	}
	return nil
}

// endRenew notes that a hold was prolonged, or may have been.
func (l *ledger) endRenew(h *hold, onDisk bool, dur time.Duration, e entry, o outcome, token int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what := ""
	if onDisk {
		what = "renewal"
	}
	l.end(&e, o == done, what)
	switch o {
	case done:
		if token != h.token {
			l.fault("a renewal of token %d gave token %d", h.token, token)
		}
		h.ends = span{e.at.Add(dur), e.until.Add(dur)}
		h.sure = h.ends.from.Add(-grace)
	case lost:
		h.ends.from = minTime(h.ends.from, e.at.Add(dur))
		h.ends.to = maxTime(h.ends.to, e.until.Add(dur))
		h.sure = minTime(h.sure, h.ends.from.Add(-grace))
	}
}

// beginUnlock notes that a hold need not last from now on.
func (l *ledger) beginUnlock(h *hold) entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.sure = minTime(h.sure, time.Now())
	return l.begin(nil)
}

// endUnlock notes the answer. An unlock does not free a hold that had ended before.
func (l *ledger) endUnlock(h *hold, onDisk bool, e entry, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.freed = h.freed || o == done
	what := ""
	if onDisk && time.Now().Before(h.ends.from.Add(-grace)) {
		what = "unlock"
	}
	l.end(&e, o == done, what)
}

// exclusive checks that each grant came after the previous hold had ended. Tokens give the
// order.
func (l *ledger) exclusive(b *lockBook, target string) {
	slices.SortFunc(b.holds, func(x, y *hold) int { return int(x.token - y.token) })
	var before *hold // of the earlier holds, the one that lasts longest
	for _, h := range b.holds {
		if before != nil && h.granted.Before(before.sure) {
			l.fault("%s had two holders: token %d was granted at %v, token %d was held until %v", target, h.token, h.granted, before.token, before.sure)
		}
		if before == nil || h.sure.After(before.sure) {
			before = h
		}
	}
}

// forget ends every hold, as a restart does with mutexes.
func (b *lockBook) forget() { *b = lockBook{} }

// holder is the holder of a lock, as GET answers it; Token 0: nobody.
type holder struct {
	ID      string
	Token   int64
	TTL     float64
	Expires time.Time
	Waiters int
}

// recoveredLock checks the holder of a lock after a restart. GET was sent at asked.
func (l *ledger) recoveredLock(target string, asked time.Time, got holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.locks, target)
	l.exclusive(b, target)
	var last, match *hold
	for _, h := range b.holds {
		last = h
		if h.token == got.Token {
			match = h
		}
	}
	if last != nil && last.token != got.Token && asked.Before(last.sure) {
		l.fault("%s was lost: token %d is held until %v, but at %v it is %+v", target, last.token, last.sure, asked, got)
	}
	ends, attempted := b.owners[got.ID]
	switch {
	case got.Token == 0:
	case match != nil && match.freed:
		l.fault("%s is held by token %d again, whose unlock was acknowledged", target, got.Token)
	case match != nil:
		ends = match.ends
	case !attempted:
		l.fault("%s is held by %+v, which nobody asked for", target, got)
	default:
		if got.Token <= l.tokens.floor || l.tokens.given[got.Token] {
			l.fault("%s has token %d, which was given before", target, got.Token)
		}
		l.tokens.note(got.Token)
	}
	if got.Token == 0 {
		b.forget()
		return
	}
	if e := got.Expires; !ends.to.IsZero() && (e.Before(ends.from.Add(-grace)) || e.After(ends.to.Add(grace+l.prolonged))) {
		l.fault("%s with token %d ends at %v, it should in %v to %v", target, got.Token, e, ends.from, ends.to)
	}
	h := &hold{token: got.Token, owner: got.ID, granted: asked, ends: span{got.Expires, got.Expires}, sure: got.Expires.Add(-grace)}
	*b = lockBook{holds: []*hold{h}}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
