package db

import (
	"context"
	"sync"

	"clouddragon/internal/lease"
	"clouddragon/slots"
)

// Kinds of things that live in slots; part of the file format, never changed.
const (
	kindSequence uint8 = 1
	kindCounter  uint8 = 2
	kindLock     uint8 = 3
)

type verb uint8

const (
	verbAdd verb = iota
	verbReset
	verbLock
	verbUnlock
	verbHolder
	verbCancel
	verbReserve
	verbSet
	verbDelete
	verbMove
)

// op is one operation on its way through the writer. Its fields belong to the
// caller until it is submitted, then to the writer until done has a token.
type op struct {
	verb verb
	key  slots.Key
	hash uint64

	n, min, max int64 // what to add, and the counter's bounds

	// Of a lock.
	owner     string
	token     int64
	dur, wait int64 // ns
	force     bool
	ctx       context.Context // ends when the caller is gone
	target    *op             // what verbCancel cancels
	waiter    lease.Waiter
	queued    bool  // a later step answers it
	passedAt  int64 // when the hold before ended, on the monotonic clock, if it was granted from the queue

	kv   *valueOp // of a value
	move *moveOp  // of compaction

	desperate bool // it frees, and there is no way to make room: it may use the last

	value    int64 // the answer
	holder   Holder
	err      error
	capacity uint64        // with needSlot: of the table that had no free slot
	done     chan struct{} // has room for one token
}

var ops = sync.Pool{New: func() any { return &op{done: make(chan struct{}, 1)} }}

func newOp(v verb, kind uint8, k Key) *op {
	o := ops.Get().(*op)
	o.verb, o.key = v, slots.Key{Kind: kind, Acc: k.Acc, ID: k.ID}
	o.hash = o.key.Hash()
	return o
}

// free gives an answered op back.
func (o *op) free() {
	*o = op{done: o.done}
	ops.Put(o)
}

// frees says whether the operation only gives room back: on a full disk it may
// use what is held back.
func (o *op) frees() bool { return o.verb != verbAdd && o.verb != verbLock && o.verb != verbSet }

// room is the most that the operation adds to a batch, in bytes of the log.
func (o *op) room() int {
	switch {
	case o.kv != nil:
		return o.kv.room(o.key)
	case o.move != nil:
		return o.move.size
	}
	return opRoom
}

// queue holds what was asked since somebody last looked, and says whose turn it
// is to write.
type queue struct {
	mu     sync.Mutex // guards what follows
	ops    []*op
	closed error // why nothing more is taken
	taken  bool  // it is somebody's turn
	wanted bool  // the standby has asked for the next turn
	passed bool  // it is the standby's turn: the last one left it to him

	wake chan struct{} // has a token if the standby should look
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds an operation. With lead it is the caller's turn to write, and the
// operation is the first in the queue.
func (q *queue) put(o *op) (lead bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return false, q.closed
	}
	q.ops = append(q.ops, o)
	lead = !q.taken
	q.taken = true
	return lead, nil
}

// take returns all that waits, and spare as the next queue's memory. After
// close it still returns what was put before.
func (q *queue) take(spare []*op) (ops []*op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops, q.ops = q.ops, spare[:0]
	return ops, q.closed != nil
}

// begin asks for the standby's turn. If it is somebody else's, that one wakes the
// standby when it is over.
func (q *queue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken && !q.passed {
		q.wanted = true
		return false
	}
	q.taken, q.passed, q.wanted = true, false, false
	return true
}

// end ends the standby's turn, unless something waits.
func (q *queue) end() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken = len(q.ops) > 0
	return !q.taken
}

// yield ends a caller's turn. With more, or if something waits, it is the standby's.
func (q *queue) yield(more bool) {
	q.mu.Lock()
	q.passed = more || q.wanted || len(q.ops) > 0
	q.taken = q.passed
	passed := q.passed
	q.mu.Unlock()
	if passed {
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
	return len(q.ops)
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
