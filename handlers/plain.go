package handlers

import (
	"context"
	"errors"
	"net/http"
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
	// wait is how long a caller with a retry key would wait. The operation is tried without a
	// wait, because it is decided at once.
	wait time.Duration

	// What the call waits for. wake ends the wait.
	mutex *db.MutexWait // nil: no mutex
	watch *db.Watch     // nil: no change
	ask   watchAsk
	wake  func()
	gone  func() error // returns an error if the client has hung up
}

// errOdd is returned by a call in a loop that would have to wait for memory. Nothing was done.
var errOdd = errors.New("net/http has to serve this")

// errWaits is returned by a call in a loop that waits. The loop resumes it.
var errWaits = errors.New("this waits")

func newPlainCall(x *front.Exchange) *plainCall {
	p := &plainCall{x: x, wake: x.Done}
	p.call.Done = func(*db.Call) { x.Done() }
	p.gone = func() error {
		if x.Gone {
			return context.Canceled
		}
		return nil
	}
	x.State = p
	return p
}

// Start begins to answer a request: with its answer, or with an operation for Submit.
func (s plain) Start(x *front.Exchange) (v front.Verdict) {
	p, ok := x.State.(*plainCall)
	if !ok {
		p = newPlainCall(x)
	}
	c := calls.Get().(*call)
	c.w, c.r, c.began, c.plain = x, x.Request, time.Now(), p
	p.c, p.once, p.wait = c, nil, 0
	defer func() {
		if r := recover(); r != nil || v != front.Pending && v != front.Waiting {
			v = s.end(c, v, r)
		}
	}()
	e, err := s.route(c)
	if err == nil {
		v, err = s.begin(p, e)
	}
	return s.conclude(c, v, err)
}

// conclude turns the outcome of a step into a verdict. It answers the call unless that waits or goes to
// net/http.
func (s plain) conclude(c *call, v front.Verdict, err error) front.Verdict {
	switch {
	case err == errOdd:
		return front.Odd
	case err == errWaits:
		return front.Waiting
	case errors.Is(err, context.Canceled):
		panic(http.ErrAbortHandler)
	case err != nil:
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
	p.endpoint = e
	isOp := e.serve == nil && !e.waits || e.inLoop
	if !isOp && !e.quick {
		return front.Odd, nil
	}
	watches := false
	if e.watch != nil {
		var err error
		if p.ask, watches, err = s.asksToWatch(c, e); err != nil {
			return front.Answered, err
		}
		isOp = isOp && !watches
	}
	switch {
	case x.Behind && (!isOp || s.isDraining()):
		return front.Later, nil
	case watches:
		return front.Answered, s.beginWatch(p)
	case !isOp:
		return front.Answered, e.serve(s.server, c)
	}
	op, err := s.prepare(c, e)
	if err != nil {
		return front.Answered, err
	}
	p.call.Op, p.call.Err = op, nil
	if w, ok := op.(db.Waiting); ok {
		x.Keep = w.Waits() > 0
	}
	if c.retryKey != "" {
		if take, ok := op.(*db.RateTake); ok {
			p.wait, take.Wait = take.Wait, 0
		}
		p.once = s.once(c, op, func() error { return c.say(e.steps.answer(op)) })
		p.call.Op = p.once.retry
	}
	return front.Pending, nil
}

// beginWatch begins to wait for a change: see look.
func (s plain) beginWatch(p *plainCall) (err error) {
	p.watch, err = s.db.BeginWatch(p.endpoint.watch.what, p.c.key, p.ask.not, p.ask.wait, p.wake)
	if err != nil {
		p.watch = nil
		return err
	}
	return s.look(p)
}

// look answers if there was a change, or the wait is over. Otherwise it returns errWaits.
func (s plain) look(p *plainCall) error {
	over, err := p.watch.Look(p.c.r.Context())
	if !over {
		return errWaits
	}
	return s.sayWatched(p.c, p.endpoint, p.ask, p.endWatch(), err)
}

func (p *plainCall) endWatch() *db.Watch {
	w := p.watch
	p.watch = nil
	w.End()
	return w
}

// lockMutex locks a mutex. It returns errWaits if the call waits for it.
func (p *plainCall) lockMutex(s *server, r db.LockRequest) error {
	if r.Wait > 0 {
		if err := p.gone(); err != nil {
			return err
		}
	}
	w, token, err := s.db.BeginMutex(r, p.wake)
	if w != nil {
		p.mutex = w
		return errWaits
	}
	if err != nil {
		return err
	}
	return p.c.sayNumber(token)
}

// Resume goes on with a call that waited for a mutex or a change.
func (s plain) Resume(x *front.Exchange) (v front.Verdict) {
	p := x.State.(*plainCall)
	c := p.c
	defer func() {
		if r := recover(); r != nil || v != front.Waiting {
			v = s.end(c, v, r)
		}
	}()
	return s.conclude(c, front.Answered, s.resume(p))
}

func (s plain) resume(p *plainCall) error {
	if w := p.mutex; w != nil {
		p.mutex = nil
		token, err := w.End(p.gone)
		if err != nil {
			return err
		}
		return p.c.sayNumber(token)
	}
	gone := p.gone()
	if gone != nil && !p.watch.Asks() {
		return gone
	}
	err := s.look(p)
	if err == errWaits && gone != nil {
		p.watch.Leave()
	}
	return err
}

// Leave ends the wait of a call whose client has hung up.
func (s plain) Leave(x *front.Exchange) {
	p := x.State.(*plainCall)
	switch {
	case p.mutex != nil:
		p.mutex.Leave(context.Canceled)
	case p.watch != nil:
		p.watch.Leave()
	default:
		if o, ok := p.call.Op.(db.Waiting); ok {
			s.db.Leave(o, context.Canceled)
		}
	}
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
	if o, ok := op.(db.Waiting); ok {
		err = s.db.Answered(o, err, p.gone)
	}
	switch {
	case p.hasToWait(err):
		err = errOdd
	case p.once != nil:
		s.db.CountRetry(p.once.retry, err)
		err = p.once.answer(c, err)
	case err == nil:
		err = c.say(p.endpoint.steps.answer(op))
	}
	return s.conclude(c, front.Answered, err)
}

// hasToWait reports whether a rate that was asked without a wait and has refused with err is to
// be asked again with the wait. If it cannot allow the call in time, it refuses either way.
func (p *plainCall) hasToWait(err error) bool {
	var rate *db.RateError
	return p.wait > 0 && errors.As(err, &rate) && rate.Retry <= p.wait
}

// end ends a call, also one that panicked with r, and returns the verdict.
func (s plain) end(c *call, v front.Verdict, r any) (end front.Verdict) {
	if c.plain.watch != nil { // the client has left, or a look panicked
		c.plain.endWatch()
	}
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
