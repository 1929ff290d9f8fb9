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
	dur   int64
	wall  int64
}

// answered is a note: the operation with that id is done, or refused and nothing changed.
type answered struct {
	id    int64
	done  bool
	value int64
	wall  int64
}

// passed is a note: time is about to go by, until then.
type passed struct{ wall int64 }

// inLine is a note: the lock asked for in that operation is held, and the caller
// is the first in the queue.
type inLine struct{ id int64 }

// pinned is a note: all that a ledger says was read, so it stays.
type pinned struct{ l *ledger }

// ledger is the state that the notes so far allow.
type ledger struct {
	wall   int64 // the latest that the clock may have been
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
	lo, hi int64 // between these its hold ends, wall time
	ended  bool  // somebody asked to unlock it
	freed  bool  // and was answered
	heir   int64 // who is the first in its queue, if somebody is known to be
}

func newLedger() *ledger { return &ledger{wall: epoch, things: make(map[slot.Key]entry)} }

func (l *ledger) clone() *ledger {
	c := *l
	c.things, c.open = maps.Clone(l.things), slices.Clone(l.open)
	return &c
}

func (a asked) thing() slot.Key { return slotKey(a.kind, a.key) }

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
		l.wall = max(l.wall, n.wall)
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
		l.newest = max(l.newest, n.value)
	case verbReset, verbDelete:
		e = entry{}
	case verbLock:
		if a.token != 0 && n.value != a.token {
			l.err = fmt.Errorf("lock %v: renewed as token %d, asked was %+v", a.key, n.value, a)
		}
		if n.value == e.token {
			e.lo, e.hi = a.wall+a.dur, n.wall+a.dur
			break
		}
		if n.value < e.token {
			break // its hold was over, and the next one's answer overtook this one
		}
		e = entry{live: true, token: n.value, owner: a.owner, lo: a.wall + a.dur, hi: n.wall + a.dur}
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

// check reads everything and says what contradicts the ledger. at is what the
// clock of d says, wall time. It returns the ledger that is certain from then on:
// what was read stays.
func (l *ledger) check(d *DB, at int64) (*ledger, error) {
	if l.err != nil {
		return nil, l.err
	}
	all, err := l.read(d)
	if err != nil {
		return nil, err
	}
	sure := &ledger{wall: at, token: l.token, newest: l.newest, things: make(map[slot.Key]entry, len(all))}
	live, over := 0, 0
	for k, f := range all {
		e := l.things[k]
		switch k.Kind {
		case kindLock:
			err = l.checkLock(k, e, f, at)
			e = entry{live: f.live, token: f.holder.Token, owner: f.holder.Owner, lo: f.holder.Expires.UnixNano(), hi: f.holder.Expires.UnixNano()}
			sure.token = max(sure.token, f.holder.Token)
		case kindValue:
			err = l.checkValue(k, e, f)
			e = entry{live: f.live, sum: f.value, version: f.version}
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
		used += int(d.tables.Capacity(class) - d.tables.Free(class))
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

func (l *ledger) checkValue(k slot.Key, e entry, f found) error {
	open := l.onTheirWay(k)
	switch {
	case f.live == e.live && f.value == e.sum && f.version == e.version:
		return nil
	case !f.live && slices.ContainsFunc(open, func(a asked) bool { return a.verb == verbDelete }):
		return nil
	case f.live && f.version > e.version && slices.ContainsFunc(open, func(a asked) bool { return a.verb == verbSet && a.n == f.value }):
		return nil
	}
	return fmt.Errorf("value %v: found %+v; acknowledged %+v, on their way %+v", k, f, e, open)
}

func (l *ledger) checkLock(k slot.Key, e entry, f found, at int64) error {
	h, open := f.holder, l.onTheirWay(k)
	fault := func(what string) error {
		return fmt.Errorf("lock %v: %s: found %t %+v at %d; acknowledged %+v, on their way %+v", k, what, f.live, h, at, e, open)
	}
	lo, hi := e.lo, e.hi
	for _, a := range open {
		if a.verb == verbLock && (a.token == e.token && a.token != 0 || a.owner == e.owner && a.owner != "") {
			lo, hi = min(lo, a.wall+a.dur), max(hi, l.wall+a.dur)
		}
	}
	over := !e.live || e.ended || lo <= at
	heir := l.find(e.heir)
	switch {
	case f.live && h.Token == e.token && e.live:
		if ends := h.Expires.UnixNano(); e.freed || h.Owner != e.owner || ends < lo || ends > hi {
			return fault("it was unlocked, or is another's, or ends at another time")
		}
		return nil
	case !over:
		return fault("the holder lost it before its time")
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

// isUnknown says whether the disk failed during the very write.
func isUnknown(err error) bool { return errors.Is(err, ErrUnknown) }
