package crashtest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// keyed sends a write with its own retry key. A write without an answer is sent again after
// the restart.
func (w *worker) keyed() {
	c := &keyedCall{key: fmt.Sprintf("%s.%d", w.name, w.count), target: keyedSequence, n: 1 + w.rng.Int64N(100)}
	if w.rng.IntN(2) == 0 {
		c.target, c.n = keyedBatch, w.rng.Int64N(2*bound)-bound
	}
	path, body := c.request()
	e := w.ledger.beginKeyed(c)
	a, o := w.callWith("POST", path, keyHeader(c.key), body)
	w.ledger.endKeyed(c, e, o, a.body)
}

func keyHeader(key string) string { return "Idempotency-Key: " + key + "\r\n" }

// checkKeyed sends every keyed call of the last round again, twice, and compares the answers
// and the data with the ledger.
func (l *load) checkKeyed(c *client) error {
	ask := func(method, target, body string) (answer, error) {
		a, _, err := l.ask(c, method, target, "", body)
		return a, err
	}
	got, err := readMoved(ask)
	if err != nil {
		return err
	}
	l.ledger.recoveredMoves(got, false)
	for _, target := range []string{keyedSequence, keyedBatch} {
		for range 2 {
			for _, call := range l.ledger.toRepeat(target) {
				path, body := call.request()
				a, _, err := l.ask(c, "POST", path, keyHeader(call.key), body)
				if err != nil {
					return err
				}
				l.ledger.repeated(call, a)
			}
		}
	}
	if got, err = readMoved(ask); err != nil {
		return err
	}
	l.ledger.recoveredMoves(got, true)
	a, err := ask("GET", keyedSequence, "")
	if err != nil {
		return err
	}
	n := int64(0)
	if a.status != 404 {
		n, err = a.number()
	}
	l.ledger.recoveredKeyed(n)
	return err
}

// readMoved reads the result of the batches, in one batch.
func readMoved(do func(method, target, body string) (answer, error)) (moved, error) {
	a, err := do("POST", keyedBatch, "GET counter/left\nGET counter/right\nGET sequence/moves\nGET kv/last\n")
	if err != nil {
		return moved{}, err
	}
	lines := strings.Split(a.body, "\n")
	if a.status != 200 || len(lines) != 5 {
		return moved{}, fmt.Errorf("a batch of reads: %v", a)
	}
	var m moved
	var errs []error
	for i, n := range []*int64{&m.left, &m.right, &m.moves} {
		if text, ok := strings.CutPrefix(lines[i], "200 "); ok {
			*n, err = strconv.ParseInt(text, 10, 64)
			errs = append(errs, err)
		}
	}
	m.last, _ = strings.CutPrefix(lines[3], "200 ")
	return m, errors.Join(errs...)
}
