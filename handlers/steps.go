package handlers

import (
	"errors"
	"net/http"
	"strconv"

	"clouddragon/db"
)

// A durable call has three steps. Single requests, lines of a batch and event loops share
// them:
//
//	prepare  parses and validates the request, and returns an operation of db
//	         the operation is decided, alone or with others
//	answer   turns the operation into a result
//
// prepare and answer know neither the request nor the connection, and never wait.

// ask is what a call asks for: a single request or a line of a batch.
type ask struct {
	api    API
	of     API    // what List lists
	method string // as it was sent
	key    db.Key
	params params
	// For a call on a value.
	value    []byte        // to be stored
	typ      string        // its Content-Type, as it is kept
	encoding string        // its Content-Encoding
	cond     db.Conditions // what the headers ask for; its Check is AnyVersion
}

// result is the answer of a call that was done.
type result struct {
	status    int
	number    int64
	hasNumber bool
	etag      int64     // the version that the header ETag names; 0: none
	value     *db.Value // of a GET of kv
	json      any       // of a GET of a lock
	owner     string    // of the lock that json tells of
	rate      *rateSaid // of a call on a rate
	line      string    // the error, if the status is 400 or more
}

// numbered is a result that is a number.
func numbered(n int64) result { return result{status: http.StatusOK, number: n, hasNumber: true} }

// done is a result without a body.
func done() result { return result{status: http.StatusNoContent} }

// steps are the steps before and after the operation of a call.
type steps struct {
	prepare func(*server, *ask) (db.Operation, error)
	answer  func(op db.Operation) result
}

// durable makes steps of prepare and answer for one type of operation.
func durable[Op db.Operation](prepare func(*server, *ask) (Op, error), answer func(Op) result) *steps {
	return &steps{
		prepare: func(s *server, a *ask) (db.Operation, error) { return prepare(s, a) },
		answer:  func(op db.Operation) result { return answer(op.(Op)) },
	}
}

// prepare takes the first step of a durable call.
func (s *server) prepare(c *call, e *endpoint) (db.Operation, error) {
	if e.api == KV {
		if err := c.readHeaders(e); err != nil {
			return nil, err
		}
	}
	op, err := e.steps.prepare(s, &c.ask)
	if err != nil {
		return nil, err
	}
	if set, ok := op.(*db.ValueSet); ok {
		if set.Data, err = s.readBody(c, s.limits.Value, "limits.value"); err != nil {
			return nil, err
		}
		c.sentBody = set.Data
		c.patience()
		c.brief()
	}
	return op, nil
}

// do takes the steps of a durable call that is a single request.
func (s *server) do(c *call, e *endpoint) error {
	op, err := s.prepare(c, e)
	if err != nil {
		return err
	}
	return s.doOnce(c, op, func() error { return c.say(e.steps.answer(op)) })
}

// run does an operation. If it has to read a value, run takes memory for the value and
// tries again.
func (s *server) run(c *call, whole, part db.Operation) error {
	ttl, reads := part.(*db.ValueTTL)
	if !reads {
		return s.db.Do(whole)
	}
	most := int64(uncounted)
	for race := 1; ; race++ {
		budget := most
		ttl.Budget = &budget
		err := s.db.Do(whole)
		if !errors.Is(err, db.ErrTooLarge) {
			return err
		}
		if race == maxRaces {
			return errCrowded
		}
		s.memory.free(c.held)
		c.held = 0
		most = ttl.Needs()
		if err := s.memory.hold(c, most, memoryPatience*s.pace.idle); err != nil {
			return err
		}
	}
}

// say sets the answer to a result.
func (c *call) say(r result) error {
	h := c.w.Header()
	if r.etag != 0 {
		h[headerETag] = []string{etag(r.etag)}
	}
	if r.rate != nil {
		r.rate.headers(h)
	}
	switch {
	case r.hasNumber:
		return c.sayNumber(r.number)
	case r.json != nil:
		if r.owner != "" {
			h["Lock-Id"] = []string{percentEncode(r.owner)}
		}
		c.status = r.status
		return c.sayJSON(r.json)
	}
	c.status = r.status
	return nil
}

// appendNumber appends a number as text or as JSON. In JSON a number that JavaScript
// cannot represent also comes as text.
func appendNumber(b []byte, n int64, asJSON bool) []byte {
	if !asJSON {
		return strconv.AppendInt(b, n, 10)
	}
	b = append(b, `{"value":`...)
	b = strconv.AppendInt(b, n, 10)
	if n > maxExact || n < -maxExact {
		b = append(b, `,"text":"`...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, '"')
	}
	return append(b, '}')
}
