package crashtest

import "slices"

// sequenceBook is what is known about a sequence, which is never reset.
type sequenceBook struct {
	base      int64 // its value at the last recovery
	acked     int64 // values handed out since
	attempted int64 // values asked for since, without those refused
	blocks    []block
	seen      int64 // the highest value in an answer, including answers to reads
}

// block are the values from first to last.
type block struct{ first, last int64 }

func (l *ledger) beginSequence(target string, n int64) entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	book(l.sequences, target).attempted += n
	return l.begin(nil)
}

// endSequence notes that the block that ends with last was handed out or refused, or
// that its outcome is unknown.
func (l *ledger) endSequence(target string, n int64, e entry, o outcome, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.sequences, target)
	l.end(&e, o == done, target)
	switch o {
	case refused:
		b.attempted -= n
	case done:
		b.acked += n
		b.blocks = append(b.blocks, block{last - n + 1, last})
		b.seen = max(b.seen, last)
		if last-n < b.base {
			l.fault("%s: the block %d to %d was handed out, though the value was %d before", target, last-n+1, last, b.base)
		}
	}
}

// beginRead returns what is known when a sequence is about to be read; endRead takes it.
func (l *ledger) beginRead(target string) (known int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return book(l.sequences, target).seen
}

func (l *ledger) endRead(target string, known, got int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.sequences, target)
	b.seen = max(b.seen, got)
	if got < known {
		l.fault("%s: a read said %d, though %d was known before", target, got, known)
	}
}

// recoveredSequence checks the value after a restart; 0 if there is none.
func (l *ledger) recoveredSequence(target string, got int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.sequences, target)
	if low, high := b.base+b.acked, b.base+b.attempted; got < low || got > high {
		l.fault("%s is %d after the restart: %d acknowledged, %d attempted", target, got, low, high)
	}
	if got < b.seen {
		l.fault("%s is %d after the restart, but %d was seen before", target, got, b.seen)
	}
	slices.SortFunc(b.blocks, func(x, y block) int { return int(x.first - y.first) })
	for i, x := range b.blocks {
		if i > 0 && x.first <= b.blocks[i-1].last {
			l.fault("%s: the blocks %v and %v overlap", target, b.blocks[i-1], x)
		}
	}
	*b = sequenceBook{base: got, seen: got}
}

// counterBook is what is known about a counter. Each client adds or subtracts its own power of
// two, so the value shows which adds it contains.
type counterBook struct {
	known  int64       // the value at the last recovery and all acknowledged adds since
	unsure [32][2]int8 // by power: how many adds, and how many subtractions, may be in it
}

func (l *ledger) beginCounter() entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin(nil)
}

func (l *ledger) endCounter(target string, power int, minus bool, e entry, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.counters, target)
	l.end(&e, o == done, target)
	n, sign := int64(1)<<power, 0
	if minus {
		n, sign = -n, 1
	}
	switch o {
	case done:
		b.known += n
	case lost:
		b.unsure[power][sign]++
	}
}

// recoveredCounter checks the value after a restart; 0 if there is none.
func (l *ledger) recoveredCounter(target string, got, bound int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.counters, target)
	if !b.reaches(got - b.known) {
		l.fault("%s is %d after the restart: %d was acknowledged, and no adds without an answer make up the rest (%v)", target, got, b.known, b.unsure)
	}
	if bound > 0 && (got < -bound || got > bound) {
		l.fault("%s is %d, beyond its bound %d", target, got, bound)
	}
	*b = counterBook{known: got}
}

// reaches reports whether some of the adds with unknown outcome sum up to n.
func (b *counterBook) reaches(n int64) bool {
	rests := map[int64]bool{n: true}
	for _, unsure := range b.unsure {
		next := make(map[int64]bool)
		for rest := range rests {
			for k := -int64(unsure[1]); k <= int64(unsure[0]); k++ {
				if (rest-k)&1 == 0 {
					next[(rest-k)>>1] = true
				}
			}
		}
		rests = next
	}
	return rests[0]
}

// outcome is what a client knows about a call.
type outcome int

const (
	refused outcome = iota // nothing was done
	done
	lost // it may have been done
)
