package db

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	slot "clouddragon/slots"
)

// found is what reading a thing returned.
type found struct {
	live    bool
	value   int64
	version int64
	holder  Holder
}

// read reads everything that a ledger knows.
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

// check reads everything and returns an error if it contradicts the ledger. Otherwise it
// returns the ledger that holds from then on, because what was read must stay.
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
	type number struct {
		live bool
		sum  int64
	}
	may := map[number]bool{{e.live, e.sum}: true}
	for _, a := range open {
		for before := range maps.Clone(may) {
			after := number{}
			if a.verb == verbAdd {
				after = number{true, before.sum + a.n}
			}
			may[after] = true
		}
	}
	if may[number{true, f.value}] {
		return nil
	}
	return fmt.Errorf("%v is %d; acknowledged were %d (%t), on their way %+v", k, f.value, e.sum, e.live, open)
}

// checkValue also returns what is certain of the value from then on.
func (l *ledger) checkValue(k slot.Key, e entry, f found, at int64) (sure entry, err error) {
	open := l.onTheirWay(k)
	// over reports whether something with that end may have expired, by now or by the latest
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
	next := l.find(e.nextWaiter)
	switch {
	case f.live && h.Token == e.token && e.live:
		if end := at + int64(h.TTL); e.freed || h.Owner != e.owner || end < lo || end > hi {
			return fault("it was unlocked, or is another's, or ends at another time")
		}
		return nil
	case !over:
		return fault("the holder lost it before its time")
	case e.freed && next >= 0 && !f.live && l.open[next].at+l.open[next].dur <= latest:
		return nil
	case e.freed && next >= 0 && (!f.live || h.Owner != l.open[next].owner):
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

// checkAnswers checks all answers of a run together: no number of a sequence is handed out
// twice between two resets, and no token is ever granted twice.
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

// isUnknown reports whether the disk failed during this write, so that its outcome is unknown.
func isUnknown(err error) bool { return errors.Is(err, ErrUnknown) }
