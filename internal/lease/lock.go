package lease

import (
	"clouddragon/internal/list"
)

// lock is a lock that has holders, claims, or both. The table has no entries for other locks.
type lock struct {
	key     Key
	holders list.List[holder] // oldest first
	queue   list.List[claim]

	limit   int32 // the smallest of the holders' limits
	atLimit int   // how many holders have that limit; 0: limit has to be computed again

	anonymous int    // holders without an owner that do not rest
	resting   int    // holders that rest
	index     *index // nil if there are few holders
	due       bool   // the first claim may fit, so Expire has to try to grant it
	place     int    // in the schedule, if due
}

// state is the part of a holder that changes while it holds the lock.
type state struct {
	Holder
	callers int  // callers that were answered with the grant, not counting those that GiveBack has reported
	renewed bool // it was renewed since the grant
}

type holder struct {
	state
	lock  *lock
	in    list.Item[holder]
	place int // in the schedule
}

// claim is one place in the queue, for one waiter or for all waiters with the same owner.
type claim struct {
	owner   string
	limit   int32
	lock    *lock
	in      list.Item[claim]
	waiters list.List[Waiter] // in order of arrival
}

// claimKey finds the claim of an owner.
type claimKey struct {
	lock  *lock
	owner string
}

// index finds a holder among many by token or owner.
type index struct {
	byToken map[int64]*holder
	byOwner map[string]*holder // those that do not rest
}

// A lock with more holders than this has an index.
const fewHolders = 8

// counted updates the counts of the lock for h, which has been added to the list.
func (l *lock) counted(h *holder) {
	switch {
	case l.holders.Len() == 1 || l.atLimit > 0 && h.Limit < l.limit:
		l.limit, l.atLimit = h.Limit, 1
	case l.atLimit > 0 && h.Limit == l.limit:
		l.atLimit++
	}
	if l.index == nil && l.holders.Len() > fewHolders {
		l.index = &index{map[int64]*holder{}, map[string]*holder{}}
		for o := l.holders.First(); o != nil; o = o.in.Next() {
			l.index.add(o)
		}
	} else if l.index != nil {
		l.index.add(h)
	}
	l.tally(h, 1)
}

// tally adds h to the counts of anonymous and resting holders.
func (l *lock) tally(h *holder, n int) {
	switch {
	case h.Resting:
		l.resting += n
	case h.Owner == "":
		l.anonymous += n
	}
}

// uncounted undoes counted for h, which has been removed from the list.
func (l *lock) uncounted(h *holder) {
	if h.Limit == l.limit && l.atLimit > 0 {
		l.atLimit--
	}
	if l.index != nil {
		l.index.remove(h)
	}
	l.tally(h, -1)
}

// set changes the state of h. That may make it rest or, in an undo, hold again.
func (l *lock) set(h *holder, s state) {
	if s.Resting == h.Resting {
		h.state = s
		return
	}
	l.tally(h, -1)
	if l.index != nil {
		l.index.remove(h)
	}
	h.state = s
	l.tally(h, 1)
	if l.index != nil {
		l.index.add(h)
	}
}

func (x *index) add(h *holder) {
	x.byToken[h.Token] = h
	if h.Owner != "" && !h.Resting {
		x.byOwner[h.Owner] = h
	}
}

func (x *index) remove(h *holder) {
	delete(x.byToken, h.Token)
	if x.byOwner[h.Owner] == h {
		delete(x.byOwner, h.Owner)
	}
}

// byToken returns the holder with a token, which may rest, or nil.
func (l *lock) byToken(token int64) *holder {
	if l.index != nil {
		return l.index.byToken[token]
	}
	for h := l.holders.First(); h != nil; h = h.in.Next() {
		if h.Token == token {
			return h
		}
	}
	return nil
}

// byOwner returns the holder with that owner that does not rest, or nil.
func (l *lock) byOwner(owner string) *holder {
	if l.index != nil && owner != "" {
		return l.index.byOwner[owner]
	}
	return l.search(owner, false)
}

// search returns the oldest holder that matches owner and resting, or nil. An owner of "" matches holders without one.
func (l *lock) search(owner string, resting bool) *holder {
	if resting && l.resting == 0 {
		return nil
	}
	for h := l.holders.First(); h != nil; h = h.in.Next() {
		if h.Owner == owner && h.Resting == resting {
			return h
		}
	}
	return nil
}

// fits reports whether the rule allows one more holder with the given limit.
func (l *lock) fits(limit int32) bool {
	n := l.holders.Len()
	if n == 0 {
		return true
	}
	if l.atLimit == 0 {
		l.limit = Shared
		for h := l.holders.First(); h != nil; h = h.in.Next() {
			if h.Limit < l.limit {
				l.limit, l.atLimit = h.Limit, 0
			}
			if h.Limit == l.limit {
				l.atLimit++
			}
		}
	}
	return n < int(min(limit, l.limit))
}

// own returns the hold that a request renews, or nil.
func (l *lock) own(r *Request) *holder {
	var h *holder
	switch {
	case r.Token != 0:
		h = l.byToken(r.Token)
	case r.Owner != "":
		h = l.byOwner(r.Owner)
	}
	if h == nil || h.Resting {
		return nil
	}
	return h
}

// releases returns the hold that a release without force is for; it may rest already. If there is none, it returns the
// outcome of the release.
func (l *lock) releases(owner string, token int64) (*holder, Outcome) {
	var h *holder
	switch {
	case token != 0:
		if h = l.byToken(token); h != nil && owner != "" && owner != h.Owner {
			h = nil
		}
	case owner == "" && l.anonymous > 1:
		return nil, Several
	case owner == "" && l.anonymous == 0:
		h = l.search("", true)
	default:
		if h = l.byOwner(owner); h == nil {
			h = l.search(owner, true)
		}
	}
	if h == nil {
		return nil, NotHolder
	}
	return h, Released
}

// oldest returns the oldest holder, or nil. l may be nil.
func (l *lock) oldest() *Holder {
	if l == nil || l.holders.First() == nil {
		return nil
	}
	return &l.holders.First().Holder
}
