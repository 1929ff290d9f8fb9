package db

import (
	"context"
	"time"
)

// Waiting is an operation whose call may wait in a queue: a LockTake or a RateTake. Its call is
// answered once it need not wait any more.
type Waiting interface {
	Operation
	// Waits returns how long the call may wait.
	Waits() time.Duration

	leave(why error) Operation // takes the call out of its queue
	giveBack() Operation       // undoes what a caller that has left was given
	answered(d *DB, err error) // tells the observer
}

// Leave takes a submitted call out of its queue, because its caller does not want to wait any
// more. The answer is then the error why, unless the call is answered before. Leave does not
// wait.
func (d *DB) Leave(o Waiting, why error) { d.later(o.leave(why)) }

// Answered has to be called after the answer err of each call that may wait. If the answer is no
// error, but gone returns one because the caller has left, Answered undoes what was done for the
// caller, without waiting for that, and returns the error. Else it returns err.
func (d *DB) Answered(o Waiting, err error, gone func() error) error {
	return d.answered(o, err, gone, d.later)
}

// answered is Answered with the function that submits what undoes it.
func (d *DB) answered(o Waiting, err error, gone func() error, undo func(Operation)) error {
	if o.Waits() == 0 {
		return err
	}
	o.answered(d, err)
	if err != nil {
		return err
	}
	if err = gone(); err != nil {
		undo(o.giveBack())
	}
	return err
}

// later submits an operation whose answer nobody needs. If the writer takes no more calls, it
// has answered those that wait.
func (d *DB) later(o Operation) {
	d.SubmitAll(false, []*Call{{Op: o, Done: func(*Call) {}}})
}

// await submits an operation that may wait, and waits for the answer. If ctx ends, the call
// leaves its queue, and what was done for it meanwhile is undone when await returns.
func (d *DB) await(ctx context.Context, o Waiting) error {
	answered := make(chan struct{}, 1)
	call := Call{Op: o, Done: func(*Call) { answered <- struct{}{} }}
	if err := d.Submit(&call); err != nil {
		return err
	}
	if o.Waits() == 0 {
		<-answered
		return call.Err
	}
	select {
	case <-answered:
	case <-ctx.Done():
		d.Leave(o, context.Cause(ctx))
		<-answered
	}
	// What the call was granted is given back before the caller has the error, so a crash cannot
	// bring the grant back.
	return d.answered(o, call.Err, func() error { return gone(ctx) }, func(o Operation) {
		_ = d.Do(o) // if the log has no room, the caller keeps it until its end
	})
}
