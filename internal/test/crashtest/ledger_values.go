package crashtest

import "math"

// valueBook is what is known about one key's value.
type valueBook struct {
	sets    []*set
	deletes []entry // that were done, or may have been
	highest int64   // the highest version that is known to have existed
}

// set is a value that was stored, or may have been.
type set struct {
	entry
	version int64 // 0: not known
	data    string
}

func (l *ledger) beginValue(target string) (entry, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin(&l.versions), book(l.values, target).highest
}

func (l *ledger) endSet(target, data string, e entry, o outcome, version int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.values, target)
	l.end(&e, o == done, target)
	switch o {
	case done:
		l.take(&l.versions, version, &e, target)
		b.highest = max(b.highest, version)
		b.sets = append(b.sets, &set{e, version, data})
	case lost:
		e.ended = math.MaxInt64
		b.sets = append(b.sets, &set{e, 0, data})
	}
}

// endDelete notes the answer to a DELETE; sure if there must have been something to delete.
func (l *ledger) endDelete(target string, e entry, o outcome, sure bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.values, target)
	what := ""
	if sure {
		what = "delete of " + target
	}
	l.end(&e, o == done, what)
	if o == lost {
		e.ended = math.MaxInt64
	}
	if o != refused {
		b.deletes = append(b.deletes, e)
	}
}

// endGet checks what a read returned; version 0: nothing.
func (l *ledger) endGet(target string, e entry, known, version int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.values, target)
	l.end(&e, true, "")
	if version != 0 && version < known {
		l.fault("%s: a read saw version %d, though %d was known before", target, version, known)
	}
	b.highest = max(b.highest, version)
}

// recoveredValue checks the value of a key after a restart; version 0: none.
func (l *ledger) recoveredValue(target string, version int64, data string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.values, target)
	var top, match *set
	for _, s := range b.sets {
		if s.acked && (top == nil || s.version > top.version) {
			top = s
		}
		if s.data == data && (s.version == version || s.version == 0) {
			match = s
		}
	}
	switch {
	case version == 0:
		if top != nil && !b.mayBeDeleted(top) {
			l.fault("%s is gone after the restart: version %d was acknowledged, and no delete came after it", target, top.version)
		}
		l.settleValue(b, nil)
		return
	case match == nil:
		l.fault("%s holds %s with version %d after the restart, which nobody stored", target, brief(data), version)
		match = &set{version: version, data: data}
	case version < b.highest:
		l.fault("%s has version %d after the restart, but %d was there before", target, version, b.highest)
	case match.acked && b.wasDeleted(match):
		l.fault("%s has version %d after the restart, though it was deleted", target, version)
	case !match.acked && version <= l.versions.floor:
		l.fault("%s has the new version %d after the restart, but %d was given long before", target, version, l.versions.floor)
	case !match.acked && l.versions.given[version]:
		l.fault("%s has version %d after the restart, which another value was given", target, version)
	}
	match.version = version
	l.versions.note(version)
	l.settleValue(b, match)
}

// settleValue starts a new history with the value that was found.
func (l *ledger) settleValue(b *valueBook, s *set) {
	*b = valueBook{}
	if s != nil {
		l.tick++
		s.begun, s.ended, s.acked = l.tick, l.tick, true
		b.sets, b.highest = []*set{s}, s.version
	}
}

// mayBeDeleted reports whether a delete can have come after a set.
func (b *valueBook) mayBeDeleted(s *set) bool {
	for _, d := range b.deletes {
		if d.ended > s.begun {
			return true
		}
	}
	return false
}

// wasDeleted reports whether a delete that was done began after a set had ended.
func (b *valueBook) wasDeleted(s *set) bool {
	for _, d := range b.deletes {
		if d.acked && d.begun > s.ended {
			return true
		}
	}
	return false
}

func brief(s string) string { return s[:min(len(s), 40)] }
