package crashtest

import (
	"fmt"
	"sync"
	"time"
)

// ledger is what the clients of one data directory have attempted and what was
// acknowledged, from the first run of the program to the last. An entry is begun
// before the request is sent and ended after the answer is there, so that the
// order of the entries is the order that the clients can know of.
type ledger struct {
	mu     sync.Mutex // guards what follows, and the books
	tick   int64      // grows with each entry begun or ended
	faults []string

	acks    int           // in this round
	last    time.Time     // of the last ack
	silence time.Duration // the longest time between two acks in this round
	until   int           // acks that make enough
	full    chan struct{} // closed once there are enough
	failing bool          // the disk may fail
	cut     bool          // the power was cut: nothing begun now may be acknowledged

	term      int           // grows whenever another server may take over
	prolonged time.Duration // how much later locks may end after a restart

	sequences map[string]*sequenceBook
	counters  map[string]*counterBook
	values    map[string]*valueBook
	locks     map[string]*lockBook
	mutexes   map[string]*lockBook
	keyed     map[string]*keyBook

	tokens   growing // over all locks and mutexes
	versions growing // over all values
}

func newLedger() *ledger {
	return &ledger{
		sequences: make(map[string]*sequenceBook), counters: make(map[string]*counterBook), values: make(map[string]*valueBook),
		locks: make(map[string]*lockBook), mutexes: make(map[string]*lockBook), keyed: make(map[string]*keyBook),
		tokens: growing{what: "token"}, versions: growing{what: "version"},
	}
}

// acked returns how many writes were acknowledged in the round.
func (l *ledger) acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// away returns the longest time of the round in which no write was acknowledged.
func (l *ledger) away() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silence
}

// round begins a round. It returns a channel that is closed once so many writes were
// acknowledged in it.
func (l *ledger) round(acks int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks, l.until, l.full, l.failing, l.cut = 0, acks, make(chan struct{}), false, false
	l.last, l.silence = time.Time{}, 0
	for target, m := range l.mutexes {
		l.exclusive(m, target)
		m.forget()
	}
	l.tokens.settle()
	l.versions.settle()
	if acks == 0 {
		close(l.full)
	}
	return l.full
}

// more returns a channel that is closed once so many more writes were acknowledged.
func (l *ledger) more(acks int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.full = l.acks+acks, make(chan struct{})
	return l.full
}

// wasCut notes that the power was cut: nothing begun later may be acknowledged.
func (l *ledger) wasCut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
}

// fails notes that the disk may fail from now on.
func (l *ledger) fails() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = true
}

func (l *ledger) isFailing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failing
}

// fault notes that a promise was broken. The caller holds mu.
func (l *ledger) fault(format string, args ...any) {
	const most = 20
	if len(l.faults) < most {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// broken returns what was found.
func (l *ledger) broken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults
}

// entry is one attempt.
type entry struct {
	begun      int64 // ticks
	ended      int64
	at, until  time.Time
	last       int64 // the highest token or version known when it was begun
	acked      bool
	mustBeDown bool // begun after the power was cut
}

func (l *ledger) begin(of *growing) entry {
	l.tick++
	e := entry{begun: l.tick, at: time.Now(), mustBeDown: l.cut}
	if of != nil {
		e.last = of.last
	}
	return e
}

// end notes the answer to an attempt. what names it, if it needed the disk.
func (l *ledger) end(e *entry, acked bool, what string) {
	l.tick++
	e.ended, e.until, e.acked = l.tick, time.Now(), acked
	if !acked || what == "" {
		return
	}
	if e.mustBeDown {
		l.fault("%s was acknowledged, though the power was cut before it was asked for", what)
	}
	if !l.last.IsZero() {
		l.silence = max(l.silence, e.until.Sub(l.last))
	}
	l.last = e.until
	l.acks++
	if l.acks == l.until {
		close(l.full)
	}
}

// growing are numbers that only grow and never come twice.
type growing struct {
	what  string
	last  int64
	given map[int64]bool // since settle; older ones are at most floor
	floor int64
}

// settle forgets single numbers: what was handed out is at most floor.
func (g *growing) settle() { g.floor, g.given = g.last, make(map[int64]bool) }

// take notes a number that was given to an attempt.
func (l *ledger) take(g *growing, n int64, e *entry, whose string) {
	switch {
	case g.given[n] || n <= g.floor:
		l.fault("%s %d of %s was given before", g.what, n, whose)
	case n <= e.last:
		l.fault("%s %d of %s is not above %d, which was known before it was asked for", g.what, n, whose, e.last)
	}
	g.given[n] = true
	g.last = max(g.last, n)
}

// note notes a number that was not answered but seen later.
func (g *growing) note(n int64) {
	g.given[n] = true
	g.last = max(g.last, n)
}

// book returns the book of a thing, and makes it for the first entry.
func book[B any](books map[string]*B, target string) *B {
	b := books[target]
	if b == nil {
		b = new(B)
		books[target] = b
	}
	return b
}
