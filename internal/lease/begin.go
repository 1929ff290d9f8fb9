package lease

import "slices"

// begin starts a step on a lock: it handles everything that is due in it, as Expire would, and returns the lock, or nil if
// it has neither holders nor waiters.
func (t *Table) begin(now int64, k Key) *lock {
	t.clear()
	l := t.locks[k]
	if l == nil || !t.schedule.any(now) {
		return l
	}
	for all := t.dues(now, l); len(all) > 0; {
		d := all[0]
		all = all[1:]
		if !t.stillDue(d) {
			continue
		}
		t.handle(now, d)
		if h := d.holder; h != nil && h.Expires <= now {
			// The hold has ended, and its rest has ended too.
			if d := (due{at: h.Expires, lock: l, holder: h}); t.stillDue(d) {
				i, _ := slices.BinarySearchFunc(all, d, inOrder)
				all = slices.Insert(all, i, d)
			}
		}
	}
	return t.locks[k]
}

// dues returns what is due in l at now, in order.
func (t *Table) dues(now int64, l *lock) (all []due) {
	for h := l.holders.First(); h != nil; h = h.in.Next() {
		if h.Expires <= now {
			all = append(all, due{at: h.Expires, lock: l, holder: h})
		}
	}
	if l.due {
		all = append(all, t.schedule[l.place])
	}
	for c := l.queue.First(); c != nil; c = c.in.Next() {
		for w := c.waiters.First(); w != nil; w = w.in.Next() {
			if w.deadline <= now {
				all = append(all, due{at: w.deadline, lock: l, waiter: w})
			}
		}
	}
	slices.SortStableFunc(all, inOrder)
	return all
}

func inOrder(a, b due) int {
	switch {
	case a.before(b):
		return -1
	case b.before(a):
		return 1
	}
	return 0
}

// stillDue reports whether d is still in the schedule unchanged.
func (t *Table) stillDue(d due) bool {
	place := 0
	switch {
	case d.holder != nil:
		place = d.holder.place
	case d.waiter != nil:
		place = d.waiter.place
	default:
		place = d.lock.place
	}
	return place < len(t.schedule) && t.schedule[place] == d
}
