package handlers

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"clouddragon/db"
	"clouddragon/internal/front"
)

// Plain returns a front.Plain, which answers plain requests in event loops with the steps
// of ServeHTTP, but without waiting. h is the handler that New has returned.
func Plain(h http.Handler) front.Plain { return plain{h.(*server)} }

type plain struct{ *server }

// plainCall is a call in an event loop. It is reused with its exchange.
type plainCall struct {
	x        *front.Exchange
	c        *call
	endpoint *endpoint
	call     db.Call // the submitted operation
	once     *once   // the operation's retry key; nil: it has none
	// wait is how long the caller would wait. The operation is tried without a wait first.
	wait time.Duration
}

// errOdd is returned by a call in a loop that would have to wait. Nothing was done.
var errOdd = errors.New("net/http has to serve this")

// Start begins to answer a request: with its answer, or with an operation for Submit.
func (s plain) Start(x *front.Exchange) (v front.Verdict) {
	p, ok := x.State.(*plainCall)
	if !ok {
		p = &plainCall{x: x}
		p.call.Done = func(*db.Call) { p.x.Done() }
		x.State = p
	}
	c := calls.Get().(*call)
	c.w, c.r, c.began, c.plain = x, x.Request, time.Now(), p
	p.c, p.once, p.wait = c, nil, 0
	defer func() {
		if r := recover(); r != nil || v != front.Pending {
			v = s.end(c, v, r)
		}
	}()
	e, err := s.route(c)
	if err == nil {
		v, err = s.begin(p, e)
	}
	if err == errOdd {
		return front.Odd
	}
	if err != nil {
		s.refuse(c, err)
		v = front.Answered
	}
	if v == front.Answered {
		s.send(c)
	}
	return v
}

// begin begins the call of an endpoint. While earlier operations of the connection are not
// done, only further operations may begin, because the writer keeps their order.
func (s plain) begin(p *plainCall, e *endpoint) (front.Verdict, error) {
	c, x := p.c, p.x
	isOp := e.serve == nil && !e.waits || e.tries
	switch {
	case !isOp && !e.quick || c.watches(e):
		return front.Odd, nil
	case x.Behind && (!isOp || s.isDraining()):
		return front.Later, nil
	case !isOp:
		return front.Answered, e.serve(s.server, c)
	}
	op, err := s.prepare(c, e)
	if err != nil {
		return front.Answered, err
	}
	switch take := op.(type) { // most need not wait
	case *db.LockTake:
		p.wait, take.Wait = take.Wait, 0
	case *db.RateTake:
		p.wait, take.Wait = take.Wait, 0
	}
	x.Keep = p.wait > 0
	p.endpoint, p.call.Op, p.call.Err = e, op, nil
	if c.retryKey != "" {
		p.once = s.once(c, op, func() error { return c.say(e.steps.answer(op)) })
		p.call.Op = p.once.retry
	}
	return front.Pending, nil
}

// watches reports whether a GET waits for a change.
func (c *call) watches(e *endpoint) bool {
	return c.method == "GET" && (slices.Contains(e.params, "not") && c.params.text("not") != "" ||
		slices.Contains(e.params, "wait") && c.params.text("wait") != "")
}

// isDraining reports whether the server shuts down.
func (s *server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

var callLists = sync.Pool{New: func() any { return new([]*db.Call) }}

// Submit submits the operations to db.
func (s plain) Submit(xs []*front.Exchange, lead bool) {
	list := callLists.Get().(*[]*db.Call)
	calls := (*list)[:0]
	for _, x := range xs {
		calls = append(calls, &x.State.(*plainCall).call)
	}
	*list = calls
	s.db.SubmitAll(lead, calls)
	clear(*list)
	callLists.Put(list)
}

// Finish answers with an operation's result.
func (s plain) Finish(x *front.Exchange) (v front.Verdict) {
	p := x.State.(*plainCall)
	c, op, err := p.c, p.call.Op.(db.Operation), p.call.Err
	p.call.Op = nil
	defer func() { v = s.end(c, v, recover()) }()
	if p.hasToWait(err) {
		return front.Odd
	}
	switch {
	case p.once != nil:
		s.db.CountRetry(p.once.retry, err)
		err = p.once.answer(c, err)
	case err == nil:
		err = c.say(p.endpoint.steps.answer(op))
	}
	if err != nil {
		s.refuse(c, err)
	}
	s.send(c)
	return front.Answered
}

// hasToWait reports whether an operation that was tried without a wait and refused with err
// is to be tried again with the wait. A rate that cannot allow the call in time refuses it
// either way.
func (p *plainCall) hasToWait(err error) bool {
	if err == nil || p.wait == 0 {
		return false
	}
	var held *db.HeldError
	var rate *db.RateError
	return errors.As(err, &held) || errors.As(err, &rate) && rate.Retry <= p.wait
}

// end ends a call, also one that panicked with r, and returns the verdict.
func (s plain) end(c *call, v front.Verdict, r any) (end front.Verdict) {
	if r == nil && v != front.Answered {
		// The call starts again, here or in net/http.
		*c = call{buf: c.buf}
		calls.Put(c)
		return v
	}
	defer func() {
		if recover() != nil {
			end = front.Aborted
		}
	}()
	s.finish(c, r)
	return front.Answered
}
