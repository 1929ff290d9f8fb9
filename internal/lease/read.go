package lease

import (
	"cmp"
	"slices"

	"clouddragon/internal/list"
)

// Holder returns the holder that has a token at now and does not rest. Only such a token renews and fences. It returns
// false if there is none.
func (t *Table) Holder(now int64, k Key, token int64) (Holder, bool) {
	t.restored()
	l := t.locks[k]
	if l == nil {
		return Holder{}, false
	}
	h := l.byToken(token)
	if h == nil || h.Resting || h.Expires <= now {
		return Holder{}, false
	}
	return h.Holder, true
}

// Oldest returns the oldest holder at now, even one at rest. It returns false if the lock is free.
func (t *Table) Oldest(now int64, k Key) (Holder, bool) {
	t.restored()
	if l := t.locks[k]; l != nil {
		for h := l.holders.First(); h != nil; h = h.in.Next() {
			if is, ok := h.at(now); ok {
				return is, true
			}
		}
	}
	return Holder{}, false
}

// Holders returns at most n holders at now, including those at rest, oldest first.
func (t *Table) Holders(now int64, k Key, n int) (all []Holder) {
	t.restored()
	if l := t.locks[k]; l != nil {
		for h := l.holders.First(); h != nil && len(all) < n; h = h.in.Next() {
			if is, ok := h.at(now); ok {
				all = append(all, is)
			}
		}
	}
	return all
}

// Held calls fn for each lock that is held or at rest at now, with its oldest holder, in no particular order.
func (t *Table) Held(now int64, fn func(Key, Holder)) {
	t.restored()
	for k := range t.locks {
		if h, ok := t.Oldest(now, k); ok {
			fn(k, h)
		}
	}
}

// Queue returns at most n of the claims on the lock, the first in line first.
func (t *Table) Queue(k Key, n int) (all []Waiting) {
	if l := t.locks[k]; l != nil {
		for c := l.queue.First(); c != nil && len(all) < n; c = c.in.Next() {
			all = append(all, Waiting{c.owner, c.waiters.First().since, c.limit})
		}
	}
	return all
}

// Waiters returns how many claims wait for the lock.
func (t *Table) Waiters(k Key) int {
	if l := t.locks[k]; l != nil {
		return l.queue.Len()
	}
	return 0
}

// Stats returns the table's counts.
func (t *Table) Stats() Stats { return t.stats }

// Restore adds a holder that was read from disk during a start. A lock may have several, in any order. The table must
// have no marks, and later tokens must be larger than those of the holders.
func (t *Table) Restore(k Key, h Holder) {
	l := t.locks[k]
	if l == nil {
		l = t.addLock(k)
	}
	last := l.holders.Last()
	x := t.holdersSpare.get()
	x.Holder, x.callers = h, 1
	t.addHolder(l, x)
	if last != nil && last.Token > h.Token {
		t.unsorted = append(t.unsorted, l)
	}
}

// restored sorts restored holders by their grants.
func (t *Table) restored() {
	if len(t.unsorted) == 0 {
		return
	}
	for _, l := range t.unsorted {
		var all []*holder
		for h := l.holders.First(); h != nil; h = h.in.Next() {
			all = append(all, h)
		}
		byToken := func(a, b *holder) int { return cmp.Compare(a.Token, b.Token) }
		if slices.IsSortedFunc(all, byToken) {
			continue // l is listed more than once
		}
		slices.SortFunc(all, byToken)
		l.holders = list.List[holder]{}
		for _, h := range all {
			h.in = l.holders.End(h)
			l.holders.PutBack(&h.in)
		}
	}
	t.unsorted = nil
}
