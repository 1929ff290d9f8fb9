package db

import (
	"container/heap"
	"math"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
	"clouddragon/internal/list"
)

// rates has the calls that wait until a rate allows them. The leader owns it, except for
// waiting. It is in memory only: a call is counted when it is allowed, so a restart, which
// ends all waits, has nothing to take back.
type rates struct {
	limit   *lease.Limit // on waiting calls
	admit   func(acc string) error
	queues  map[Key]*rateQueue // no queue is empty
	heads   rateHeap           // the same queues
	journal []rateChange       // changes since the first mark
	count   int                // waiting calls
	waiting atomic.Int64       // count after the last batch
}

// rateQueue is the queue of one rate, in the order in which the calls came. A call is
// allowed only after those before it.
type rateQueue struct {
	key    Key
	takes  list.List[RateTake]
	at     int64 // the theoretical arrival time in the transaction
	owes   int64 // what all waiting calls will add to it
	others int   // how many of them ask for something else than the first call
	asked  rateAsk
	place  int // among the heads
}

// rateAsk is what decides when a call is allowed.
type rateAsk struct {
	rate Rate
	cost int64
}

func (o *RateTake) ask() rateAsk { return rateAsk{o.Rate, o.Cost} }

// due returns when the first call of the queue is allowed.
func (q *rateQueue) due() int64 {
	first := q.takes.First()
	return q.at - max(0, first.most(first.Cost))
}

// until returns the time until o is allowed if it queues now. at is the theoretical arrival
// time.
func (q *rateQueue) until(now, at int64, o *RateTake) time.Duration {
	// Calls that ask for the same become due in order. Otherwise a call may have to wait for
	// one before it although its own time has come.
	var turn int64
	if q.others > 0 || q.asked != o.ask() {
		backlog := at - now
		for w := q.takes.First(); w != nil; w = w.place.Next() {
			turn = max(turn, backlog-w.most(w.Cost))
			backlog += w.adds
		}
	}
	own := o.until(at-now+q.owes, o.Cost)
	return max(own, time.Duration(turn))
}

// rateChange is a change of a queue that can be undone.
type rateChange struct {
	queue  *rateQueue
	was    rateQueueState
	waiter *RateTake // nil: only the time was changed
	added  bool      // false: it was removed
}

type rateQueueState struct {
	at, owes int64
	others   int
	asked    rateAsk
}

func (q *rateQueue) state() rateQueueState { return rateQueueState{q.at, q.owes, q.others, q.asked} }

// add adds a call at the end of its queue. Its place in the limit has been taken.
func (r *rates) add(o *RateTake, at int64) {
	q := r.queues[o.Key]
	if q == nil {
		q = &rateQueue{key: o.Key, asked: o.ask()}
	}
	r.journal = append(r.journal, rateChange{q, q.state(), o, true})
	q.at, q.owes = at, q.owes+o.adds
	if q.asked != o.ask() {
		q.others++
	}
	o.place = q.takes.End(o)
	r.link(q, o)
}

// remove takes a call out of its queue and sets the queue's theoretical arrival time to at.
func (r *rates) remove(o *RateTake, at int64) {
	q := o.in
	r.journal = append(r.journal, rateChange{q, q.state(), o, false})
	q.at, q.owes = at, q.owes-o.adds
	if q.asked != o.ask() {
		q.others--
	}
	r.unlink(q, o)
	r.limit.Give()
}

// moved notes that the theoretical arrival time of a rate has changed.
func (r *rates) moved(k Key, at int64) {
	if q := r.queues[k]; q != nil {
		r.journal = append(r.journal, rateChange{queue: q, was: q.state()})
		q.at = at
		heap.Fix(&r.heads, q.place)
	}
}

// link inserts a call into its queue at its place.
func (r *rates) link(q *rateQueue, o *RateTake) {
	o.in = q
	q.takes.PutBack(&o.place)
	r.count++
	if q.takes.Len() == 1 {
		r.queues[q.key] = q
		heap.Push(&r.heads, q)
		return
	}
	heap.Fix(&r.heads, q.place)
}

// unlink removes a call from its queue. The call keeps its place, so that link can undo it.
func (r *rates) unlink(q *rateQueue, o *RateTake) {
	o.in = nil
	q.takes.Remove(&o.place)
	r.count--
	if q.takes.Len() == 0 {
		delete(r.queues, q.key)
		heap.Remove(&r.heads, q.place)
		return
	}
	heap.Fix(&r.heads, q.place)
}

// Mark returns a savepoint.
func (r *rates) Mark(*commit.Tx) int { return len(r.journal) }

// Undo takes back everything since a mark.
func (r *rates) Undo(mark int) {
	for i := len(r.journal) - 1; i >= mark; i-- {
		c := &r.journal[i]
		q := c.queue
		q.at, q.owes, q.others, q.asked = c.was.at, c.was.owes, c.was.others, c.was.asked
		switch {
		case c.waiter == nil:
			heap.Fix(&r.heads, q.place)
		case c.added:
			r.unlink(q, c.waiter)
			r.limit.Give()
		default:
			r.limit.Retake()
			r.link(q, c.waiter)
		}
	}
	clear(r.journal[mark:])
	r.journal = r.journal[:mark]
}

// Forget makes everything so far final.
func (r *rates) Forget() {
	clear(r.journal)
	r.journal = r.journal[:0]
}

// Next returns the instant at which the next call is allowed.
func (r *rates) Next() (at int64, ok bool) {
	if len(r.heads) == 0 {
		return math.MaxInt64, false
	}
	return r.heads[0].due(), true
}

// Expire counts and answers the first call that is allowed by now.
func (r *rates) Expire(tx *commit.Tx) error {
	q := r.heads[0]
	o := q.takes.First()
	if err := r.admit(o.Key.Acc); err != nil {
		r.refuse(tx, []*RateTake{o}, err)
		return nil
	}
	at := max(q.at, tx.Now())
	r.remove(o, at+o.adds)
	err := o.take(tx, at)
	if err != nil && !tx.Scarce() {
		return err
	}
	if err != nil { // refuse it; otherwise it would wait forever and hold up those behind it
		err = ErrFull
	}
	tx.Answer(o.call, err)
	return nil
}

// TimeOut answers the calls whose wait is over. It is used when a full disk does not let them
// be counted.
func (r *rates) TimeOut(tx *commit.Tx) {
	var over []*RateTake
	for _, q := range r.heads {
		for o := q.takes.First(); o != nil; o = o.place.Next() {
			if o.deadline <= tx.Now() {
				over = append(over, o)
			}
		}
	}
	r.refuse(tx, over, ErrFull)
}

// Drain answers every call that waits.
func (r *rates) Drain(tx *commit.Tx, err error) {
	r.turnAway(tx, func(Key) bool { return true }, err)
}

// turnAway answers every call that waits for one of those rates.
func (r *rates) turnAway(tx *commit.Tx, of func(Key) bool, err error) {
	var all []*RateTake
	for _, q := range r.heads {
		if !of(q.key) {
			continue
		}
		for o := q.takes.First(); o != nil; o = o.place.Next() {
			all = append(all, o)
		}
	}
	r.refuse(tx, all, err)
}

func (r *rates) refuse(tx *commit.Tx, all []*RateTake, err error) {
	for _, o := range all {
		r.remove(o, o.in.at)
		tx.Answer(o.call, err)
	}
}

// Committed publishes the number of waiting calls.
func (r *rates) Committed() { r.waiting.Store(int64(r.count)) }

// rateHeap has the queue whose first call is allowed earliest in front.
type rateHeap []*rateQueue

func (h rateHeap) Len() int           { return len(h) }
func (h rateHeap) Less(i, j int) bool { return h[i].due() < h[j].due() }
func (h rateHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *rateHeap) Push(x any) {
	q := x.(*rateQueue)
	q.place = len(*h)
	*h = append(*h, q)
}

func (h *rateHeap) Pop() any {
	last := len(*h) - 1
	q := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return q
}
