package lease

import (
	"clouddragon/internal/list"
)

// changeKind names a primitive change of the table. Each has an inverse in revert.
type changeKind uint8

const (
	lockAdded changeKind = iota
	lockDropped
	holderAdded
	holderRemoved
	holderChanged // old is the state before
	claimAdded
	claimRemoved
	waiterAdded
	waiterRemoved // from claim
	dueSet
	dueCleared // at is when it was due
)

// change is a primitive change that can be reverted.
type change struct {
	kind   changeKind
	lock   *lock
	holder *holder
	claim  *claim
	waiter *Waiter
	old    state
	at     int64
}

// journal has the changes since the first mark, in order.
type journal struct {
	on      bool
	changes []change
}

// The memory of a larger journal is not kept.
const maxKeptChanges = 1024

// add notes a change. Callers ask first whether the journal is on, which saves making the change.
func (j *journal) add(c change) { j.changes = append(j.changes, c) }

// Mark is a state of the table that Undo can go back to.
type Mark struct {
	changes int
	stats   Stats
}

// Mark returns the current state of the table. From the first Mark until Forget the table keeps a journal.
func (t *Table) Mark() Mark {
	t.restored()
	t.journal.on = true
	return Mark{len(t.journal.changes), t.stats}
}

// Undo takes back everything since the mark: holders, the queue and its order, what is due, and the counts. Waiters
// that queued since are in no queue, and those that were answered since are waiting again. No caller is notified. The
// caller has to take back tokens and events itself. If another table that shares the limit on waiters has taken the
// place of a waiter that waits again, the limit is exceeded for a while.
//
// Marks older than m stay valid, newer ones do not. Things that are due at the same instant may be due in another order
// than before.
func (t *Table) Undo(m Mark) {
	c := t.journal.changes
	for i := len(c) - 1; i >= m.changes; i-- {
		t.revert(&c[i])
	}
	clear(c[m.changes:])
	t.journal.changes = c[:m.changes]
	t.stats = m.stats
}

// Forget makes all changes final and ends the journal. Marks become invalid.
func (t *Table) Forget() {
	j := &t.journal
	j.on = false
	for i := range j.changes {
		switch c := &j.changes[i]; c.kind {
		case lockDropped:
			t.locksSpare.put(c.lock)
		case holderRemoved:
			t.holdersSpare.put(c.holder)
		case claimRemoved:
			t.claimsSpare.put(c.claim)
		case waiterRemoved:
			c.waiter.in = list.Item[Waiter]{}
		}
	}
	clear(j.changes)
	j.changes = j.changes[:0]
	if cap(j.changes) > maxKeptChanges {
		j.changes = nil
	}
}

func (t *Table) revert(c *change) {
	switch c.kind {
	case lockAdded:
		delete(t.locks, c.lock.key)
		t.locksSpare.put(c.lock)
	case lockDropped:
		t.locks[c.lock.key] = c.lock
	case holderAdded:
		t.unlinkHolder(c.holder)
		t.holdersSpare.put(c.holder)
	case holderRemoved:
		t.linkHolder(c.holder)
	case holderChanged:
		c.holder.lock.set(c.holder, c.old)
		t.schedule.move(c.holder.place, c.holder.Expires)
	case claimAdded:
		t.unlinkClaim(c.claim)
		t.limit.Give()
		t.claimsSpare.put(c.claim)
	case claimRemoved:
		t.limit.Retake()
		t.linkClaim(c.claim)
	case waiterAdded:
		t.unlinkWaiter(c.waiter)
		c.waiter.in = list.Item[Waiter]{}
	case waiterRemoved:
		t.linkWaiter(c.claim, c.waiter)
	case dueSet:
		t.schedule.remove(c.lock.place)
		c.lock.due = false
	case dueCleared:
		t.scheduleLock(c.lock, c.at)
	}
}

func (t *Table) addLock(k Key) *lock {
	l := t.locksSpare.get()
	l.key = k
	t.locks[k] = l
	if t.journal.on {
		t.journal.add(change{kind: lockAdded, lock: l})
	}
	return l
}

func (t *Table) dropIfIdle(l *lock) {
	if l.holders.Len() > 0 || l.queue.Len() > 0 {
		return
	}
	delete(t.locks, l.key)
	if t.journal.on {
		t.journal.add(change{kind: lockDropped, lock: l})
	} else {
		t.locksSpare.put(l)
	}
}

// addHolder makes h a holder of l, the newest one.
func (t *Table) addHolder(l *lock, h *holder) {
	h.in = l.holders.End(h)
	t.placeHolder(l, h)
}

// placeHolder makes h a holder of l again, at its former place in the list.
func (t *Table) placeHolder(l *lock, h *holder) {
	h.lock = l
	t.linkHolder(h)
	if l.holders.Len() == 1 {
		t.stats.Held++
	}
	t.stats.Holders++
	if t.journal.on {
		t.journal.add(change{kind: holderAdded, holder: h})
	}
}

func (t *Table) removeHolder(h *holder) {
	t.unlinkHolder(h)
	if h.lock.holders.Len() == 0 {
		t.stats.Held--
	}
	t.stats.Holders--
	if t.journal.on {
		t.journal.add(change{kind: holderRemoved, holder: h})
	} else {
		t.holdersSpare.put(h)
	}
}

func (t *Table) changeHolder(h *holder, s state) {
	if t.journal.on {
		t.journal.add(change{kind: holderChanged, holder: h, old: h.state})
	}
	h.lock.set(h, s)
	t.schedule.move(h.place, h.Expires)
}

func (t *Table) linkHolder(h *holder) {
	h.lock.holders.PutBack(&h.in)
	h.lock.counted(h)
	t.schedule.add(due{at: h.Expires, lock: h.lock, holder: h})
}

func (t *Table) unlinkHolder(h *holder) {
	h.lock.holders.Remove(&h.in)
	h.lock.uncounted(h)
	t.schedule.remove(h.place)
}

// addClaim adds a claim at the end of the queue of l. Its place in the limit has been taken.
func (t *Table) addClaim(l *lock, owner string, limit int32) *claim {
	c := t.claimsSpare.get()
	c.owner, c.limit, c.lock = owner, limit, l
	c.in = l.queue.End(c)
	t.linkClaim(c)
	t.stats.Waiting++
	if t.journal.on {
		t.journal.add(change{kind: claimAdded, claim: c})
	}
	return c
}

// removeClaim removes a claim that has no waiters left.
func (t *Table) removeClaim(c *claim) {
	t.unlinkClaim(c)
	t.limit.Give()
	t.stats.Waiting--
	if t.journal.on {
		t.journal.add(change{kind: claimRemoved, claim: c})
	} else {
		t.claimsSpare.put(c)
	}
}

func (t *Table) linkClaim(c *claim) {
	c.lock.queue.PutBack(&c.in)
	if c.owner != "" {
		t.claims[claimKey{c.lock, c.owner}] = c
	}
}

func (t *Table) unlinkClaim(c *claim) {
	c.lock.queue.Remove(&c.in)
	if c.owner != "" {
		delete(t.claims, claimKey{c.lock, c.owner})
	}
}

func (t *Table) addWaiter(c *claim, w *Waiter) {
	w.in = c.waiters.End(w)
	t.linkWaiter(c, w)
	if t.journal.on {
		t.journal.add(change{kind: waiterAdded, waiter: w})
	}
}

func (t *Table) removeWaiter(w *Waiter) {
	c := w.claim
	t.unlinkWaiter(w)
	if t.journal.on {
		t.journal.add(change{kind: waiterRemoved, waiter: w, claim: c})
	} else {
		w.in = list.Item[Waiter]{}
	}
}

func (t *Table) linkWaiter(c *claim, w *Waiter) {
	w.claim = c
	c.waiters.PutBack(&w.in)
	t.schedule.add(due{at: w.deadline, lock: c.lock, waiter: w})
}

func (t *Table) unlinkWaiter(w *Waiter) {
	w.claim.waiters.Remove(&w.in)
	w.claim = nil
	t.schedule.remove(w.place)
}

func (t *Table) setDue(l *lock, at int64) {
	t.scheduleLock(l, at)
	if t.journal.on {
		t.journal.add(change{kind: dueSet, lock: l})
	}
}

func (t *Table) clearDue(l *lock) {
	if t.journal.on {
		t.journal.add(change{kind: dueCleared, lock: l, at: t.schedule[l.place].at})
	}
	t.schedule.remove(l.place)
	l.due = false
}

func (t *Table) scheduleLock(l *lock, at int64) {
	l.due = true
	t.schedule.add(due{at: at, lock: l})
}
