package commit

import (
	"slices"
	"sync"
)

// queue holds the calls that were submitted since it was last emptied, and says
// who commits. One goroutine commits at a time: the leader. It is either a caller
// that found the writer idle, for one batch, or the writer's own goroutine, the standby.
type queue struct {
	mu           sync.Mutex // guards what follows
	calls        []*Call
	closed       error // why no more calls are taken; nil: they are
	busy         bool  // there is a leader
	standbyWants bool  // the standby has asked to be the next leader
	handedOver   bool  // the last leader passed the turn to the standby

	wake chan struct{} // has a token if the standby should look
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds calls. If it returns lead, the caller is the leader, and its calls come first in the
// queue. Without mayLead put wakes the standby instead.
func (q *queue) put(mayLead bool, calls ...*Call) (lead bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return false, q.closed
	}
	q.calls = append(q.calls, calls...)
	if q.busy {
		return false, nil
	}
	q.busy = true
	if !mayLead {
		q.handedOver = true
		q.signal()
		return false, nil
	}
	return true, nil
}

// take returns all calls, and keeps spare as memory for the next ones. After
// close it still returns what was put before.
func (q *queue) take(spare []*Call) (calls []*Call, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	calls, q.calls = q.calls, spare[:0]
	return calls, q.closed != nil
}

// remove removes the calls whose operations match.
func (q *queue) remove(may func(Op) bool) (removed []*Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = slices.DeleteFunc(q.calls, func(c *Call) bool {
		if may(c.Op) {
			removed = append(removed, c)
			return true
		}
		return false
	})
	return removed
}

// begin makes the standby the leader. If a caller leads now, begin returns false, and the caller
// wakes the standby at the end of its turn.
func (q *queue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy && !q.handedOver {
		q.standbyWants = true
		return false
	}
	q.busy, q.handedOver, q.standbyWants = true, false, false
	return true
}

// end ends the standby's turn, unless calls are waiting.
func (q *queue) end() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = len(q.calls) > 0
	return !q.busy
}

// yield ends a caller's turn. With more, or if calls are waiting, the standby
// takes over.
func (q *queue) yield(more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.handedOver = more || q.standbyWants || len(q.calls) > 0
	q.busy = q.handedOver
	if q.handedOver {
		q.signal()
	}
}

// close makes every later put fail with err. The first reason stands.
func (q *queue) close(err error) {
	q.mu.Lock()
	if q.closed == nil {
		q.closed = err
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.calls)
}

// active reports whether calls are waiting or there is a leader. After close it returns false.
func (q *queue) active() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed == nil && (q.busy || len(q.calls) > 0)
}

// signal wakes the standby. It never waits.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
