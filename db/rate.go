package db

import (
	"context"
	"sync"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
	"clouddragon/internal/list"
)

// The payload of a slot that holds a rate is its theoretical arrival time, in
// database time. A slot whose time has passed is a rate that is full again.
//
//	0  i64 theoretical arrival time
const rateSize = 8 // part of the file format, never changed

// rateEnd is the commit.EndOf of rates: one that is full again needs no slot.
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

// queue returns the queue of the rate, nil if no call waits.
func (o *rateThing) queue() *rateQueue { return o.rates.queues[o.id] }

// arrival returns the theoretical arrival time, now if the rate is full.
func (o *rateThing) arrival(tx *commit.Tx) int64 {
	e := o.entry(tx)
	if !e.Live() {
		return tx.Now()
	}
	return max(int64(le.Uint64(e.Payload())), tx.Now())
}

// putArrival changes the theoretical arrival time. Without a backlog the rate needs
// no slot.
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

// RateRequest asks for something that a rate has to allow.
type RateRequest struct {
	Key Key
	Rate
	Cost int64         // it counts as so many, 1 to Burst
	Wait time.Duration // how long it may take until it is allowed
}

// RateTake is the operation that counts something that a rate has to allow. With a
// Wait its call queues behind those that wait already, and is answered once it is
// allowed; RateLeave takes it out of the queue.
type RateTake struct {
	RateRequest

	// State is the answer, as it is after this call was counted.
	State RateState

	thing    rateThing
	draining func() bool
	left     error // its caller has gone before it was decided

	in       *rateQueue // nil while it is in none
	place    list.Item[RateTake]
	call     *Call
	adds     int64 // to the backlog
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

// Decide counts, or queues. A *RateError says that it is not allowed now, or not
// before the wait would be over. ErrWaiters and ErrStopping say that there is no
// queueing.
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

// take counts what is allowed.
func (o *RateTake) take(tx *commit.Tx, at int64) error {
	if err := o.thing.putArrival(tx, at+o.adds); err != nil {
		return err
	}
	o.State = o.state(tx, at+o.adds)
	return nil
}

// state is what a caller is told. Nothing more is allowed at once while others wait.
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

// RateLeave is the operation that takes a call out of its queue. Those behind it
// move up.
type RateLeave struct {
	Take *RateTake
	Err  error // the answer to the call of Take
}

// Size is 0: leaving needs no room.
func (o *RateLeave) Size() int { return 0 }

// Frees is true.
func (o *RateLeave) Frees() bool { return true }

func (*RateLeave) account() string { return "" }

func (o *RateLeave) prepare(*DB) error { return nil }

// Decide leaves the queue. That the call was answered before is no error.
func (o *RateLeave) Decide(tx *commit.Tx) error {
	t := o.Take
	if t.in == nil {
		t.left = o.Err // in case it is still to be decided: it may lack room
		return nil
	}
	t.thing.rates.remove(t, t.in.at)
	tx.Answer(t.call, o.Err)
	return nil
}

// RateGiveBack is the operation that takes back what was counted for a call whose
// caller has gone before it was told.
type RateGiveBack struct {
	Take *RateTake

	thing rateThing
}

// Size returns the most bytes that the operation adds to the log.
func (o *RateGiveBack) Size() int { return commit.SlotChange }

// Frees is true: a backlog that gets smaller needs no other slot.
func (o *RateGiveBack) Frees() bool { return true }

func (*RateGiveBack) account() string { return "" }

func (o *RateGiveBack) prepare(d *DB) error {
	o.thing.set(d, o.Take.Key)
	return nil
}

// Decide takes it back.
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

// RateForget is the operation that makes a rate as if it was never used. Calls that
// wait are allowed as far as the burst goes.
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

// Decide forgets the rate. That it was never used is no error.
func (o *RateForget) Decide(tx *commit.Tx) error {
	o.thing.rates.moved(o.Key, tx.Now())
	return o.thing.putArrival(tx, tx.Now())
}

type rateCall struct {
	take     RateTake
	call     Call
	answered chan struct{} // has room for one token
}

var rateCalls = sync.Pool{New: func() any {
	c := &rateCall{answered: make(chan struct{}, 1)}
	c.call.Op = &c.take
	c.call.Done = func(*Call) { c.answered <- struct{}{} }
	return c
}}

// TakeRate counts something that a rate has to allow, and waits until it does. A
// caller whose ctx ends leaves the queue, or gets back what was counted meanwhile. The
// error is as RateTake.Decide says, or the context's.
func (d *DB) TakeRate(ctx context.Context, r RateRequest) (RateState, error) {
	c := rateCalls.Get().(*rateCall)
	c.take = RateTake{RateRequest: r}
	err := d.awaitRate(ctx, c)
	state := c.take.State
	c.call = Call{Op: c.call.Op, Done: c.call.Done}
	rateCalls.Put(c)
	return state, err
}

func (d *DB) awaitRate(ctx context.Context, c *rateCall) error {
	moves := d.moves.changed()
	if err := d.Submit(&c.call); err != nil {
		return err
	}
	if c.take.Wait == 0 {
		<-c.answered
		return c.call.Err
	}
	if cause := d.waits(ctx, c.take.Key.Acc, c.answered, moves); cause != nil {
		// Its error changes nothing: a queue that is closed answers the call by itself.
		_ = d.Do(&RateLeave{Take: &c.take, Err: cause})
		<-c.answered
	}
	if c.call.Err != nil {
		return c.call.Err
	}
	if err := gone(ctx); err != nil {
		// Without room in the log it stays counted.
		_ = d.Do(&RateGiveBack{Take: &c.take})
		return err
	}
	return nil
}

// ReadRate returns how many a rate allows, without counting.
func (d *DB) ReadRate(k Key, r Rate) (RateState, error) {
	o := RateRead{Key: k, Rate: r}
	err := d.Do(&o)
	return o.State, err
}

// ForgetRate makes a rate as if it was never used.
func (d *DB) ForgetRate(k Key) error { return d.Do(&RateForget{Key: k}) }

var _ commit.Part = (*rates)(nil)

func newRates(waiters *lease.Limit, admit func(acc string) error) *rates {
	return &rates{limit: waiters, admit: admit, queues: make(map[Key]*rateQueue)}
}
