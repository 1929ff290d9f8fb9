package db

import (
	"context"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
	"clouddragon/internal/list"
)

// The payload of a rate's slot is its theoretical arrival time, in database time. When the
// time has passed, the rate is full again.
//
//	0  i64 theoretical arrival time
const rateSize = 8 // part of the file format, never changed

// rateEnd is the commit.EndOf of rates: a rate that is full again needs no slot.
func rateEnd(payload []byte) int64 { return int64(le.Uint64(payload)) }

// rateThing is the rate that an operation is about.
type rateThing struct {
	thing
	id    Key
	rates *rates
}

func (o *rateThing) set(d *DB, k Key) {
	o.thing.set(kindRate, k)
	o.id, o.rates = k, d.rates
}

// queue returns the queue of the rate, or nil if no call waits.
func (o *rateThing) queue() *rateQueue { return o.rates.queues[o.id] }

// arrival returns the theoretical arrival time. If the rate is full, that is now.
func (o *rateThing) arrival(tx *commit.Tx) int64 {
	e := o.entry(tx)
	if !e.Live() {
		return tx.Now()
	}
	return max(int64(le.Uint64(e.Payload())), tx.Now())
}

// putArrival changes the theoretical arrival time. Without a backlog it removes the slot.
func (o *rateThing) putArrival(tx *commit.Tx, at int64) error {
	e := o.entry(tx)
	if at <= tx.Now() {
		if e.Live() {
			tx.Remove(e)
		}
		return nil
	}
	tx.Date()
	b := tx.Bytes(rateSize)
	le.PutUint64(b, uint64(at))
	return tx.Put(e, b)
}

// RateRequest asks a rate to allow a call.
type RateRequest struct {
	Key Key
	Rate
	Cost int64         // what the call counts as, 1 to Burst
	Wait time.Duration // how long to wait until the call is allowed
}

// RateTake is the operation that counts a call if the rate allows it. With a Wait the call
// queues and is answered when it is allowed. RateLeave takes it out of the queue.
type RateTake struct {
	RateRequest

	// State is the answer: the state after this call was counted.
	State RateState

	thing    rateThing
	draining func() bool
	left     error // not nil: the caller left before the call was decided

	in       *rateQueue // the queue that it is in; nil: none
	place    list.Item[RateTake]
	call     *Call
	adds     int64 // what it adds to the backlog
	deadline int64
}

// Size returns the most bytes that the operation adds to the log.
func (o *RateTake) Size() int { return commit.SlotChange }

// Frees is false.
func (o *RateTake) Frees() bool { return false }

func (o *RateTake) account() string { return o.Key.Acc }

func (o *RateTake) prepare(d *DB) error {
	o.thing.set(d, o.Key)
	o.draining, o.adds = d.draining.Load, o.Rate.adds(o.Cost)
	return nil
}

// Decide counts the call or queues it. It returns a *RateError if the rate does not allow
// the call before the wait is over. It returns ErrWaiters or ErrStopping if the call cannot
// queue.
func (o *RateTake) Decide(tx *commit.Tx) error {
	if o.left != nil {
		return o.left
	}
	at := o.thing.arrival(tx)
	q := o.thing.queue()
	retry := o.until(at-tx.Now(), o.Cost)
	if q != nil {
		retry = q.until(tx.Now(), at, o)
	}
	switch {
	case q == nil && retry == 0:
		return o.take(tx, at)
	case retry > o.Wait || o.Wait == 0:
		return rateError(&o.RateRequest, o.state(tx, at), retry)
	case o.draining():
		return ErrStopping
	case !o.thing.rates.limit.Take():
		return ErrWaiters
	}
	o.call, o.deadline = tx.Call(), tx.Now()+int64(o.Wait)
	o.thing.rates.add(o, at)
	return commit.ErrWaiting
}

// take counts a call that is allowed.
func (o *RateTake) take(tx *commit.Tx, at int64) error {
	if err := o.thing.putArrival(tx, at+o.adds); err != nil {
		return err
	}
	o.State = o.state(tx, at+o.adds)
	return nil
}

// state returns the state for the caller. While other calls wait, nothing is left.
func (r *Rate) state(now, at int64, waiting bool) RateState {
	s := RateState{Full: time.Duration(at - now)}
	if !waiting {
		s.Left = r.left(at - now)
	}
	return s
}

func (o *RateTake) state(tx *commit.Tx, at int64) RateState {
	return o.Rate.state(tx.Now(), at, o.thing.queue() != nil)
}

// RateLeave is the operation that takes a call out of its queue. Those behind it move up.
type RateLeave struct {
	Take *RateTake
	Err  error // the answer to Take's call
}

// Size is 0: leaving needs no room.
func (o *RateLeave) Size() int { return 0 }

// Frees is true.
func (o *RateLeave) Frees() bool { return true }

func (*RateLeave) account() string { return "" }

func (o *RateLeave) prepare(*DB) error { return nil }

// Decide leaves the queue. It is not an error if the call has been answered.
func (o *RateLeave) Decide(tx *commit.Tx) error {
	t := o.Take
	if t.in == nil {
		t.left = o.Err // if it lacked room, it will be decided later
		return nil
	}
	t.thing.rates.remove(t, t.in.at)
	tx.Answer(t.call, o.Err)
	return nil
}

// RateGiveBack is the operation that takes back what was counted for a caller that had
// left.
type RateGiveBack struct {
	Take *RateTake

	thing rateThing
}

// Size returns the most bytes that the operation adds to the log.
func (o *RateGiveBack) Size() int { return commit.SlotChange }

// Frees is true: a smaller backlog needs no new slot.
func (o *RateGiveBack) Frees() bool { return true }

func (*RateGiveBack) account() string { return "" }

func (o *RateGiveBack) prepare(d *DB) error {
	o.thing.set(d, o.Take.Key)
	return nil
}

// Decide takes the cost back.
func (o *RateGiveBack) Decide(tx *commit.Tx) error {
	at := max(o.thing.arrival(tx)-o.Take.adds, tx.Now())
	o.thing.rates.moved(o.thing.id, at)
	return o.thing.putArrival(tx, at)
}

// RateRead is the operation that reads how many a rate allows, without counting.
type RateRead struct {
	Key Key
	Rate

	// State is the answer.
	State RateState

	thing rateThing
}

// Size is 0: reading needs no room.
func (o *RateRead) Size() int { return 0 }

// Frees is true.
func (o *RateRead) Frees() bool { return true }

func (o *RateRead) account() string { return o.Key.Acc }

func (o *RateRead) prepare(d *DB) error {
	o.thing.set(d, o.Key)
	return nil
}

// Decide reads.
func (o *RateRead) Decide(tx *commit.Tx) error {
	o.State = o.Rate.state(tx.Now(), o.thing.arrival(tx), o.thing.queue() != nil)
	return nil
}

// RateForget is the operation that forgets what was counted. Waiting calls are allowed up to
// the burst.
type RateForget struct {
	Key Key

	thing rateThing
}

// Size returns the most bytes that the operation adds to the log.
func (o *RateForget) Size() int { return commit.SlotChange }

// Frees is true: the slot is free again.
func (o *RateForget) Frees() bool { return true }

func (o *RateForget) account() string { return o.Key.Acc }

func (o *RateForget) prepare(d *DB) error {
	o.thing.set(d, o.Key)
	return nil
}

// Decide forgets the rate. A rate that was never used is not an error.
func (o *RateForget) Decide(tx *commit.Tx) error {
	o.thing.rates.moved(o.Key, tx.Now())
	return o.thing.putArrival(tx, tx.Now())
}

// Waits reports how long the call may wait.
func (o *RateTake) Waits() time.Duration { return o.Wait }

func (o *RateTake) leave(why error) Operation { return &RateLeave{Take: o, Err: why} }

// giveBack returns the operation that takes back what was counted. If the log has no room, the
// call stays counted.
func (o *RateTake) giveBack() Operation { return &RateGiveBack{Take: o} }

func (o *RateTake) answered(*DB, error) {}

// TakeRate counts a call, and waits until the rate allows it. If ctx ends, the caller leaves
// the queue, and what was counted meanwhile is taken back. The errors are those of
// RateTake.Decide and the context's.
func (d *DB) TakeRate(ctx context.Context, r RateRequest) (RateState, error) {
	o := RateTake{RateRequest: r}
	err := d.await(ctx, &o)
	return o.State, err
}

// ReadRate returns how many a rate allows, without counting.
func (d *DB) ReadRate(k Key, r Rate) (RateState, error) {
	o := RateRead{Key: k, Rate: r}
	err := d.Do(&o)
	return o.State, err
}

// ForgetRate forgets what a rate has counted.
func (d *DB) ForgetRate(k Key) error { return d.Do(&RateForget{Key: k}) }

var _ commit.Part = (*rates)(nil)

func newRates(waiters *lease.Limit, admit func(acc string) error) *rates {
	return &rates{limit: waiters, admit: admit, queues: make(map[Key]*rateQueue)}
}
