package crashtest

import (
	"fmt"
	"strconv"
	"strings"
)

// The writes with an Idempotency-Key: blocks of a sequence, and batches that move an
// amount from one counter to another, count the moves and store the name of the last.
const (
	keyedSequence = "/db/load/sequence/keyed"
	keyedBatch    = "/db/load/batch"
)

// keyedCall is a write with an Idempotency-Key of its own.
type keyedCall struct {
	key    string
	target string // keyedSequence or keyedBatch
	n      int64  // the size of the block, or the amount
	answer string // empty: the outcome is not known
}

// request returns the path with its query, and the body.
func (c *keyedCall) request() (path, body string) {
	if c.target == keyedSequence {
		return fmt.Sprintf("%s?n=%d", c.target, c.n), ""
	}
	return c.target, fmt.Sprintf("POST counter/left?add=%d&min=%d&max=%d\nPOST counter/right?add=%d\nPOST sequence/moves\nPUT kv/last %s\n",
		c.n, -bound, bound, -c.n, c.key)
}

// number returns the last value of the block, or which move it was.
func (c *keyedCall) number() (int64, error) {
	if c.target == keyedSequence {
		return strconv.ParseInt(strings.TrimSuffix(c.answer, "\n"), 10, 64)
	}
	lines := strings.Split(strings.ReplaceAll(c.answer, "200 ", ""), "\n")
	if len(lines) != 5 {
		return 0, fmt.Errorf("the answer to a batch of 4 calls is %q", c.answer)
	}
	return strconv.ParseInt(lines[2], 10, 64)
}

// keyBook is what is known of the keyed calls of one target.
type keyBook struct {
	calls []*keyedCall // of this round, but for the refused
	asked int64        // how many may be done at most, over all rounds
	done  int64        // how many are known to be done, over all rounds
	sum   int64        // of their n
	given map[int64]*keyedCall
	last  int64 // the highest number that was given
}

func (l *ledger) beginKeyed(c *keyedCall) entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	book(l.keyed, c.target).asked++
	return l.begin(nil)
}

// endKeyed notes the first answer to a call.
func (l *ledger) endKeyed(c *keyedCall, e entry, o outcome, answer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(&e, o == done, "the key "+c.key)
	b := book(l.keyed, c.target)
	if o == refused {
		b.asked--
		return
	}
	b.calls = append(b.calls, c)
	if o == done {
		l.answered(b, c, answer)
	}
}

// answered notes that a call was done. The caller holds mu.
func (l *ledger) answered(b *keyBook, c *keyedCall, answer string) {
	c.answer = answer
	n, err := c.number()
	switch twin := b.given[n]; {
	case err != nil:
		l.fault("%s: %v", c.key, err)
	case twin != nil:
		l.fault("%s: %d was given to the key %s and to the key %s", c.target, n, twin.key, c.key)
	}
	if b.given == nil {
		b.given = make(map[int64]*keyedCall)
	}
	b.given[n], b.last = c, max(b.last, n)
	b.done++
	b.sum += c.n
}

// toRepeat returns the calls of the last round. Each has to be sent again.
func (l *ledger) toRepeat(target string) []*keyedCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return book(l.keyed, target).calls
}

// repeated notes the answer to a call that was sent again after a restart. It has to be the
// first answer, if that is known. Otherwise the call counts as done from now on.
func (l *ledger) repeated(c *keyedCall, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch replayed := a.header.Get("Idempotency-Replayed") == "true"; {
	case a.status == 409 && c.answer == "": // the call had not been done, and is refused now
		b := book(l.keyed, c.target)
		b.asked--
		for i := range b.calls {
			if b.calls[i] == c {
				b.calls = append(b.calls[:i:i], b.calls[i+1:]...)
				break
			}
		}
	case a.status != 200:
		l.fault("the key %s again: %v", c.key, a)
	case c.answer == "":
		l.answered(book(l.keyed, c.target), c, a.body)
	case !replayed || a.body != c.answer:
		l.fault("the key %s again: %v, replayed %v, want %q", c.key, a, replayed, c.answer)
	}
}

// moved is the result of the batches, as one batch reads it.
type moved struct {
	left, right, moves int64
	last               string // a key
}

// recoveredMoves checks that each batch was done as a whole or not at all. If sure,
// the outcome of every batch is known.
func (l *ledger) recoveredMoves(got moved, sure bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := book(l.keyed, keyedBatch)
	unknown := int64(0)
	for _, c := range b.calls {
		if c.answer == "" {
			unknown++
		}
	}
	switch last := b.given[b.last]; {
	case got.left+got.right != 0:
		l.fault("the counters of the batches are %d and %d: a batch was done in part", got.left, got.right)
	case got.moves < b.done || got.moves > b.done+unknown:
		l.fault("%d batches are there, %d were acknowledged, and the outcome of %d is unknown", got.moves, b.done, unknown)
	case sure && (got.left != b.sum || last != nil && got.last != last.key):
		l.fault("the batches have moved %d, and the last is %q; want %d and %v", got.left, got.last, b.sum, last)
	}
}

// recoveredKeyed checks the sequence once the outcome of every call is known, and
// forgets the calls.
func (l *ledger) recoveredKeyed(got int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := book(l.keyed, keyedSequence); got != b.sum {
		l.fault("%s is %d, and the blocks that were handed out have %d values", keyedSequence, got, b.sum)
	}
	for _, b := range l.keyed {
		b.calls = nil
	}
}
