package db

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	slot "clouddragon/slots"
)

// The ledger is what a client may rely on, kept from the notes that players put
// into a disk's journal. With the notes before a power cut it says what may be
// found after it:
//
//	acknowledged  ⊆  found  ⊆  acknowledged + asked for and not yet answered
//
// It assumes that a reset is never on its way together with another operation on
// the same thing, that a caller unlocks only what it was granted, and that a value
// has one writer at a time.

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

// answered is a note: the operation with that id is done, or refused and nothing changed.
type answered struct {
	id    int64
	done  bool
	value int64
	at    int64
}

// passed is a note: that much time is about to go by.
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

// pinned is a note: all that a ledger says was read, so it stays.
type pinned struct{ l *ledger }

// ledger is the state that the notes so far allow.
type ledger struct {
	now, wall int64 // the latest that the clocks may have been
	given     int64 // the last that something with an end was asked for, and acknowledged
	back      int64 // how far before now a process may start
	ahead     int64 // and how far after it

	token  int64 // the largest granted
	newest int64 // the largest version of a value
	things map[slot.Key]entry
	open   []asked // not answered yet
	err    error   // an answer that contradicts what was acknowledged before
}

// entry is what was acknowledged of one thing.
type entry struct {
	live bool
	sum  int64 // of a sequence or counter: all that was added; of a value: which one

	version int64 // of a value

	// Of a lock: the newest grant that was acknowledged.
	token  int64
	owner  string
	lo, hi int64 // between these its hold ends, or the value; 0: never
	ended  bool  // somebody asked to unlock it
	freed  bool  // and was answered
	heir   int64 // who is the first in its queue, if somebody is known to be
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
			e.heir = n.id
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
			break // its hold was over, and the next one's answer overtook this one
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

// found is what was read of a thing.
type found struct {
	live    bool
	value   int64
	version int64
	holder  Holder
}

// read reads all that a ledger knows of.
func (l *ledger) read(d *DB) (map[slot.Key]found, error) {
	all := make(map[slot.Key]found, len(l.things))
	for k := range l.things {
		var f found
		var err error
		switch key := (Key{k.Acc, k.ID}); k.Kind {
		case kindSequence:
			f.value, err = d.Sequence(key)
		case kindCounter:
			f.value, err = d.Counter(key)
		case kindLock:
			f.holder, err = d.LockHolder(key)
		case kindValue:
			var v Value
			if v, err = d.Get(key); err == nil {
				f.value, f.version = contentOf(v.Data), v.Version
			}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("read %v: %w", k, err)
		}
		f.live = err == nil
		all[k] = f
	}
	return all, nil
}

// check reads everything and says what contradicts the ledger. It returns the
// ledger that is certain from then on: what was read stays.
func (l *ledger) check(d *DB) (*ledger, error) {
	if l.err != nil {
		return nil, l.err
	}
	at := timeOf(d)
	if at < max(l.given, l.now-l.back) || at > l.now+l.ahead {
		return nil, fmt.Errorf("the time is %d; it was %d, may be %d before that or %d after it, and something was given at %d", at, l.now, l.back, l.ahead, l.given)
	}
	all, err := l.read(d)
	if err != nil {
		return nil, err
	}
	sure := &ledger{now: at, wall: l.wall, given: at, token: l.token, newest: l.newest, things: make(map[slot.Key]entry, len(all))}
	live, over := 0, 0
	for k, f := range all {
		e := l.things[k]
		switch k.Kind {
		case kindLock:
			err = l.checkLock(k, e, f, at)
			end := at + int64(f.holder.TTL)
			e = entry{live: f.live, token: f.holder.Token, owner: f.holder.Owner, lo: end, hi: end}
			sure.token = max(sure.token, f.holder.Token)
		case kindValue:
			e, err = l.checkValue(k, e, f, at)
			sure.newest = max(sure.newest, f.version)
		default:
			err = l.checkNumber(k, e, f)
			e = entry{live: f.live, sum: f.value}
		}
		if err != nil {
			return nil, err
		}
		switch {
		case f.live && k.Kind != kindValue:
			live++
		case k.Kind == kindLock:
			over++ // its end may wait for room in the log
		}
		sure.things[k] = e
	}
	used := 0
	for class := range slot.Classes {
		used += int(d.store.Tables.Capacity(class) - d.store.Tables.Free(class))
	}
	if used < live || used > live+over {
		return nil, fmt.Errorf("the tables hold %d things, wanted %d, and at most %d locks that are over", used, live, over)
	}
	return sure, nil
}

func (l *ledger) checkNumber(k slot.Key, e entry, f found) error {
	open := l.onTheirWay(k)
	if !f.live {
		if !e.live || slices.ContainsFunc(open, func(a asked) bool { return a.verb == verbReset }) {
			return nil
		}
		return fmt.Errorf("%v is gone; acknowledged were %d, on their way %+v", k, e.sum, open)
	}
	for set := range 1 << len(open) {
		sum, some := e.sum, e.live
		for i, a := range open {
			if set>>i&1 == 1 && a.verb == verbAdd {
				sum, some = sum+a.n, true
			}
		}
		if some && sum == f.value {
			return nil
		}
	}
	return fmt.Errorf("%v is %d; acknowledged were %d (%t), on their way %+v", k, f.value, e.sum, e.live, open)
}

// checkValue also returns what is certain of the value from then on.
func (l *ledger) checkValue(k slot.Key, e entry, f found, at int64) (sure entry, err error) {
	open := l.onTheirWay(k)
	// over reports whether what ends then may have been over, now or at the latest
	// time of the process before.
	over := func(end int64) bool { return end != 0 && end <= max(at, l.now+l.ahead) }
	if f.live == e.live && f.value == e.sum && f.version == e.version && (!e.live || e.hi == 0 || e.hi > at) {
		return e, nil
	}
	if !f.live && (!e.live || over(e.lo)) {
		return entry{}, nil
	}
	for _, a := range open {
		switch {
		case a.verb == verbDelete && !f.live:
			return entry{}, nil
		case a.verb == verbSet && a.dur != 0 && !f.live && over(a.at+a.dur):
			return entry{}, nil
		case a.verb == verbSet && f.live && f.version > e.version && a.n == f.value:
			sure = entry{live: true, sum: f.value, version: f.version}
			if a.dur != 0 {
				sure.lo, sure.hi = a.at+a.dur, l.now+l.ahead+a.dur
			}
			return sure, nil
		}
	}
	return entry{}, fmt.Errorf("value %v: found %+v at %d; acknowledged %+v, on their way %+v", k, f, at, e, open)
}

func (l *ledger) checkLock(k slot.Key, e entry, f found, at int64) error {
	h, open := f.holder, l.onTheirWay(k)
	fault := func(what string) error {
		return fmt.Errorf("lock %v: %s: found %t %+v at %d; acknowledged %+v, on their way %+v", k, what, f.live, h, at, e, open)
	}
	lo, hi := e.lo, e.hi
	for _, a := range open {
		if a.verb == verbLock && (a.token == e.token && a.token != 0 || a.owner == e.owner && a.owner != "") {
			lo, hi = min(lo, a.at+a.dur), max(hi, l.now+a.dur)
		}
	}
	latest := max(at, l.now+l.ahead)
	over := !e.live || e.ended || lo <= latest
	heir := l.find(e.heir)
	switch {
	case f.live && h.Token == e.token && e.live:
		if end := at + int64(h.TTL); e.freed || h.Owner != e.owner || end < lo || end > hi {
			return fault("it was unlocked, or is another's, or ends at another time")
		}
		return nil
	case !over:
		return fault("the holder lost it before its time")
	case e.freed && heir >= 0 && !f.live && l.open[heir].at+l.open[heir].dur <= latest:
		return nil
	case e.freed && heir >= 0 && (!f.live || h.Owner != l.open[heir].owner):
		return fault("it was not handed over to the first in the queue")
	case !f.live:
		return nil
	case h.Token <= e.token:
		return fault("it went to a token that is not above the one before")
	case !slices.ContainsFunc(open, func(a asked) bool { return a.verb == verbLock && a.token == 0 && a.owner == h.Owner }):
		return fault("it is held by one who did not ask for it")
	}
	return nil
}

// checkAnswers looks at all answers of a run together: no number of a sequence
// is handed out twice between two resets, and no token ever.
func checkAnswers(notes []any) error {
	type block struct{ last, n int64 }
	open := make(map[int64]asked)
	blocks := make(map[slot.Key][]block)
	tokens := make(map[int64]asked)
	for _, note := range notes {
		switch n := note.(type) {
		case asked:
			open[n.id] = n
		case answered:
			a := open[n.id]
			switch {
			case !n.done:
			case a.verb == verbReset:
				delete(blocks, a.thing())
			case a.verb == verbAdd && a.kind == kindSequence:
				for _, b := range blocks[a.thing()] {
					if n.value > b.last-b.n && n.value-a.n < b.last {
						return fmt.Errorf("sequence %v: the %d numbers up to %d and the %d up to %d meet", a.key, a.n, n.value, b.n, b.last)
					}
				}
				blocks[a.thing()] = append(blocks[a.thing()], block{n.value, a.n})
			case a.verb == verbLock && a.token == 0:
				if b, twice := tokens[n.value]; twice && (b.key != a.key || b.owner != a.owner || a.owner == "") {
					return fmt.Errorf("token %d was granted for %+v and for %+v", n.value, b, a)
				}
				tokens[n.value] = a
			}
		}
	}
	return nil
}

// isUnknown reports whether the disk failed during the very write.
func isUnknown(err error) bool { return errors.Is(err, ErrUnknown) }
