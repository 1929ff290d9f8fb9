package db

import (
	"fmt"
	"maps"
	"slices"

	slot "clouddragon/slots"
)

// The ledger is what a client may rely on. It is computed from the notes that players put into
// a disk's journal. From the notes before a power cut follows what may be found after it:
//
//	acknowledged  ⊆  found  ⊆  acknowledged + asked for and not yet answered
//
// It assumes that a reset is never in flight together with another operation on the same
// thing, that a caller unlocks only what it was granted, and that a value has one writer at a
// time.

// asked is a note: somebody is about to submit this operation.
type asked struct {
	id    int64
	verb  verb
	kind  uint8
	key   Key
	n     int64
	owner string
	token int64
	dur   int64 // of a hold, or a value's ttl
	at    int64 // in database time, as all that follows
}

// answered is a note: the operation with that id is done, or was refused and changed nothing.
type answered struct {
	id    int64
	done  bool
	value int64
	at    int64
}

// passed is a note: that much time is about to pass.
type passed struct{ t int64 }

// stepping is a note: the wall clock is about to be set forward that far, or back,
// while a process has the directory open.
type stepping struct{ by int64 }

// noticed is a note: an answer shows that the process has seen all steps so far.
type noticed struct{}

// setWhileDown is a note: the wall clock was set forward that far, or back, while
// no process had the directory.
type setWhileDown struct{ by int64 }

// inLine is a note: the lock asked for in that operation is held, and the caller
// is the first in the queue.
type inLine struct{ id int64 }

// pinned is a note: everything in the ledger was read, so it must stay.
type pinned struct{ l *ledger }

// ledger is the state that the notes so far allow.
type ledger struct {
	now, wall int64 // the latest that the clocks may have been
	given     int64 // when the last acknowledged thing with an end was asked for
	back      int64 // how far before now a process may start
	ahead     int64 // and how far after it

	token  int64 // the largest granted
	newest int64 // the largest version of a value
	things map[slot.Key]entry
	open   []asked // not answered yet
	err    error   // an answer that contradicts what was acknowledged before
}

// entry is what was acknowledged about one thing.
type entry struct {
	live bool
	sum  int64 // of a sequence or counter: all that was added; of a value: which one

	version int64 // of a value

	// Of a lock: the newest grant that was acknowledged.
	token      int64
	owner      string
	lo, hi     int64 // between these its hold ends, or the value; 0: never
	ended      bool  // an unlock was asked for
	freed      bool  // the unlock was answered
	nextWaiter int64 // who is the first in its queue, if somebody is known to be
}

func newLedger() *ledger { return &ledger{now: epoch, wall: epoch, things: make(map[slot.Key]entry)} }

func (l *ledger) clone() *ledger {
	c := *l
	c.things, c.open = maps.Clone(l.things), slices.Clone(l.open)
	return &c
}

func (a asked) thing() slot.Key { return slot.Key{Kind: a.kind, Acc: a.key.Acc, ID: a.key.ID} }

// enter takes one more note.
func (l *ledger) enter(note any) {
	switch n := note.(type) {
	case asked:
		l.open = append(l.open, n)
		e := l.things[n.thing()]
		if n.verb == verbUnlock && n.token == e.token {
			e.ended = true
		}
		l.things[n.thing()] = e
	case answered:
		l.answer(n)
	case passed:
		l.now, l.wall = l.now+n.t, l.wall+n.t
	case stepping:
		l.wall += n.by
		l.ahead, l.back = l.ahead+max(0, n.by), l.back+max(0, -n.by)
	case noticed:
		l.given, l.ahead, l.back = l.now, 0, 0
	case setWhileDown:
		l.wall += n.by
		l.now, l.back = l.now+max(0, n.by), l.back+max(0, -n.by)
	case inLine:
		if i := l.find(n.id); i >= 0 {
			e := l.things[l.open[i].thing()]
			e.nextWaiter = n.id
			l.things[l.open[i].thing()] = e
		}
	case pinned:
		*l = *n.l.clone()
	}
}

func (l *ledger) find(id int64) int {
	return slices.IndexFunc(l.open, func(a asked) bool { return a.id == id })
}

func (l *ledger) answer(n answered) {
	i := l.find(n.id)
	a := l.open[i]
	l.open = slices.Delete(l.open, i, i+1)
	if !n.done {
		return
	}
	e := l.things[a.thing()]
	switch a.verb {
	case verbAdd:
		e.live, e.sum = true, e.sum+a.n
	case verbSet:
		if n.value <= e.version {
			l.err = fmt.Errorf("value %v: version %d was given after %d", a.key, n.value, e.version)
		}
		e = entry{live: true, sum: a.n, version: n.value}
		if a.dur != 0 {
			e.lo, e.hi = a.at+a.dur, n.at+a.dur
			l.given = max(l.given, a.at)
		}
		l.newest = max(l.newest, n.value)
	case verbReset, verbDelete:
		e = entry{}
	case verbLock:
		if a.token != 0 && n.value != a.token {
			l.err = fmt.Errorf("lock %v: renewed as token %d, asked was %+v", a.key, n.value, a)
		}
		l.given = max(l.given, a.at)
		if n.value == e.token {
			e.lo, e.hi = a.at+a.dur, n.at+a.dur
			break
		}
		if n.value < e.token {
			break // the hold had ended, and the next holder's answer overtook this one
		}
		e = entry{live: true, token: n.value, owner: a.owner, lo: a.at + a.dur, hi: n.at + a.dur}
		l.token = max(l.token, n.value)
	case verbUnlock:
		if a.token == e.token {
			e.freed = true
		}
	}
	l.things[a.thing()] = e
}

// onTheirWay returns the operations on a thing that were not answered.
func (l *ledger) onTheirWay(k slot.Key) (open []asked) {
	for _, a := range l.open {
		if a.thing() == k {
			open = append(open, a)
		}
	}
	return open
}
