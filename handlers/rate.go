package handlers

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"clouddragon/db"
)

// POST /db/:acc/rate/:id?limit=&per=&burst=&cost=&wait=
func takeRate(s *server, c *call) error {
	if c.retryKey != "" {
		return takeRateOnce(s, c)
	}
	r, err := s.rateRequest(&c.ask)
	if err != nil {
		return err
	}
	c.prepareWait(r.Wait)
	state, err := s.db.TakeRate(c.peer(), r)
	if err != nil {
		return err
	}
	return c.say(rateResult(r.Rate, state))
}

// takeRateOnce is takeRate with a retry key. An operation whose answer is kept is decided
// at once. So a call that has to wait does so here and then asks again.
func takeRateOnce(s *server, c *call) error {
	op, err := tryRate.prepare(s, &c.ask)
	if err != nil {
		return err
	}
	take := op.(*db.RateTake)
	end := time.Now().Add(take.Wait)
	waits := take.Wait > 0
	c.prepareWait(take.Wait)
	take.Wait = 0
	ctx := c.peer()
	for {
		err := s.doOnce(c, op, func() error { return c.say(tryRate.answer(op)) })
		var late *db.RateError
		if !waits || !errors.As(err, &late) || late.Retry > time.Until(end) {
			return err
		}
		timer := time.NewTimer(late.Retry)
		select {
		case <-timer.C:
		case <-s.draining:
			timer.Stop()
			return db.ErrStopping
		case <-ctx.Done():
			timer.Stop()
			return context.Canceled
		}
	}
}

// POST /db/:acc/rate/:id without a wait, in a batch or an event loop
var tryRate = durable(
	func(s *server, a *ask) (*db.RateTake, error) {
		r, err := s.rateRequest(a)
		return &db.RateTake{RateRequest: r}, err
	},
	func(op *db.RateTake) result { return rateResult(op.Rate, op.State) },
)

// GET /db/:acc/rate/:id?limit=&per=&burst=
var readRate = durable(
	func(_ *server, a *ask) (*db.RateRead, error) {
		r, err := a.rate()
		return &db.RateRead{Key: a.key, Rate: r}, err
	},
	func(op *db.RateRead) result { return rateResult(op.Rate, op.State) },
)

// DELETE /db/:acc/rate/:id
var forgetRate = durable(
	func(_ *server, a *ask) (*db.RateForget, error) { return &db.RateForget{Key: a.key}, nil },
	func(*db.RateForget) result { return done() },
)

// rateResult answers with how many more are allowed right now.
func rateResult(r db.Rate, s db.RateState) result {
	said := numbered(s.Left)
	said.rate = &rateSaid{r, s}
	return said
}

// rateRequest reads the parameters of a POST.
func (s *server) rateRequest(a *ask) (db.RateRequest, error) {
	rate, err := a.rate()
	if err != nil {
		return db.RateRequest{}, err
	}
	p := &a.params
	r := db.RateRequest{
		Key:  a.key,
		Rate: rate,
		Cost: p.number("cost", 1, 1, rate.Burst),
		Wait: p.duration("wait", 0, s.limits.Wait, true),
	}
	return r, p.bad
}

// rate reads limit, per and burst.
func (a *ask) rate() (db.Rate, error) {
	p := &a.params
	for _, name := range []string{"limit", "per"} {
		if p.text(name) == "" {
			return db.Rate{}, badRequest("%s is missing: a rate needs limit and per, such as limit=100&per=60", name)
		}
	}
	r := db.Rate{
		Limit: p.number("limit", 0, 1, db.MaxRate),
		Per:   p.duration("per", 0, db.MaxPer, false),
	}
	r.Burst = p.number("burst", r.Limit, 1, db.MaxRate)
	return r, p.bad
}

// rateSaid is the state of a rate for the headers.
type rateSaid struct {
	rate  db.Rate
	state db.RateState
}

// headers sets the headers of the IETF draft "RateLimit header fields for HTTP". Times are
// in whole seconds, rounded up.
func (r *rateSaid) headers(h http.Header) {
	h["RateLimit-Policy"] = []string{rateField('q', r.rate.Limit, 'w', r.rate.Per)}
	h["RateLimit"] = []string{rateField('r', r.state.Left, 't', r.state.Full)}
}

// rateField returns the value of a header with a number and a time.
func rateField(number byte, n int64, time byte, d time.Duration) string {
	b := append(make([]byte, 0, 64), `"default";`...)
	b = append(b, number, '=')
	b = strconv.AppendInt(b, n, 10)
	b = append(b, ';', time, '=')
	return string(strconv.AppendInt(b, wholeSeconds(d), 10))
}

// rateRefused sets the headers that tell when the rate allows the call.
func rateRefused(h http.Header, e *db.RateError) {
	(&rateSaid{e.Rate, e.State}).headers(h)
	h["Retry-After"] = []string{strconv.FormatInt(max(1, wholeSeconds(e.Retry)), 10)}
	ms := (e.Retry + time.Millisecond - 1) / time.Millisecond
	h["Retry-After-Ms"] = []string{strconv.FormatInt(max(1, int64(ms)), 10)}
}

// wholeSeconds rounds a duration up to seconds.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
