package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"clouddragon/db"
	"clouddragon/internal/front"
	"clouddragon/internal/replica"
)

// Header values that never change. Assigning a shared slice to the map allocates nothing.
var (
	textPlain       = []string{"text/plain; charset=utf-8"}
	applicationJSON = []string{"application/json"}
	octetStream     = []string{"application/octet-stream"}
	noSniff         = []string{"nosniff"}
	challenges      = []string{"Bearer", `Basic realm="clouddragon", charset="UTF-8"`}
	vary            = []string{"Accept"}
	noStore         = []string{"no-store"}
	oneSecond       = []string{"1"}
	closeConn       = []string{"close"}
)

// timeFormat is the format of a lock's end, in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z"

// refusal is an error that has a status.
type refusal struct {
	status int
	line   string
}

func (e *refusal) Error() string { return e.line }

func badRequest(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// errInternal is what a client sees of an internal error.
var errInternal = &refusal{http.StatusInternalServerError, "internal error: see the server's log"}

// maxExact is the largest number up to which float64, and so JavaScript, can represent
// every integer.
const maxExact = 1 << 53

// sayNumber answers with a number, as text or as JSON. In JSON a number that JavaScript
// cannot represent also comes as text.
func (c *call) sayNumber(n int64) error {
	asJSON := c.wantsJSON()
	b := appendNumber(c.buf[:0], n, asJSON)
	c.ctype = textPlain
	if asJSON {
		c.ctype = applicationJSON
	}
	c.buf = append(b, '\n')
	c.status, c.body = http.StatusOK, c.buf
	return nil
}

// sayText answers with a word, as text or as JSON.
func (c *call) sayText(word string) error {
	c.status = http.StatusOK
	if c.wantsJSON() {
		return c.sayJSON(struct {
			Value string `json:"value"`
		}{word})
	}
	c.ctype, c.body = textPlain, []byte(word+"\n")
	return nil
}

// sayJSON answers with v as JSON. It does not change the status.
func (c *call) sayJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.ctype, c.body = applicationJSON, append(b, '\n')
	return nil
}

// sayDone answers 204 without a body.
func (c *call) sayDone() error {
	c.status = http.StatusNoContent
	return nil
}

// refuse answers with an error.
func (s *server) refuse(c *call, err error) {
	h := c.w.Header()
	var held *db.HeldError
	if errors.As(err, &held) {
		holder(h, held.Holder)
	}
	var rate *db.RateError
	if errors.As(err, &rate) {
		rateRefused(h, rate)
	}
	if to := elsewhere(err); to != "" {
		h["Location"] = []string{to}
	}
	var r result
	var of *batchError
	if errors.As(err, &of) {
		r = s.refusalOf(of.of, of.err)
		r.line = of.place + ": " + r.line
	} else {
		r = s.refusalOf(&c.ask, err)
	}
	switch r.status {
	case http.StatusUnauthorized:
		h["WWW-Authenticate"] = challenges
	case http.StatusServiceUnavailable:
		h["Retry-After"] = oneSecond
	}
	c.status = r.status
	if !c.wantsJSON() || c.sayJSON(problem{r.line, r.status}) != nil {
		c.ctype, c.body = textPlain, []byte(r.line+"\n")
	}
}

// refusalOf returns the status and the error line for err.
func (s *server) refusalOf(a *ask, err error) result {
	var (
		status   int
		line     = err.Error()
		refused  *refusal
		conflict *db.ConflictError
		held     *db.HeldError
		match    *db.MatchError
		rate     *db.RateError
		away     *db.AwayError
		moving   *db.MovingError
		standby  *replica.AwayError
		waits    *replica.StandbyError
		lease    *replica.LeaseError
	)
	switch {
	case errors.As(err, &refused):
		status = refused.status
	case errors.As(err, &conflict), errors.As(err, &held), errors.As(err, &rate):
		status = http.StatusConflict
	case errors.As(err, &match):
		status, line = http.StatusPreconditionFailed, a.notMatched(match)
	case errors.As(err, &away), errors.As(err, &standby):
		status = http.StatusMisdirectedRequest
	case errors.As(err, &moving), errors.As(err, &waits), errors.As(err, &lease):
		status = http.StatusServiceUnavailable
	case errors.Is(err, db.ErrNotFound):
		status, line = http.StatusNotFound, "there is no "+a.thing()
		if a.api == Lock || a.api == MLock {
			line = a.thing() + " is not locked"
		}
	case errors.Is(err, db.ErrFull):
		status, line = http.StatusInsufficientStorage, db.ErrFull.Error()
	default:
		if reason := unavailable(err); reason != nil {
			status, line = http.StatusServiceUnavailable, reason.Error()
			break
		}
		s.log.Error("a request failed", "api", a.api, "err", err)
		status, line = errInternal.status, errInternal.line
		if errors.Is(err, db.ErrDamaged) {
			line = a.thing() + " is damaged on disk: see the server's log"
		}
	}
	return result{status: status, line: oneLine(line)}
}

// problem is an error as JSON.
type problem struct {
	Error  string `json:"error"`
	Status int    `json:"status"`
}

// unavailable returns the reason for a 503 that err wraps, or nil. The full text of err
// is for the log only, because it may name files.
func unavailable(err error) error {
	for _, reason := range []error{db.ErrStopping, db.ErrWaiters, db.ErrWatchers, db.ErrReads, db.ErrDescriptors, db.ErrTokens, db.ErrBackups, db.ErrStopped, db.ErrUnanswered, db.ErrUnknown} {
		if errors.Is(err, reason) {
			return reason
		}
	}
	return nil
}

// holder sets the headers that tell who holds a lock and when to try again, because
// curl -f hides the body. For the zero Holder it sets none.
func holder(h http.Header, by db.Holder) {
	if by.Token == 0 {
		return
	}
	holderID(h, by)
	h["Lock-Expires"] = []string{by.Expires.UTC().Format(timeFormat)}
	seconds := max(1, (by.TTL+time.Second-1)/time.Second)
	h["Retry-After"] = []string{strconv.FormatInt(int64(seconds), 10)}
}

// holderID sets the header Lock-Id if the holder has an id. It is percent-encoded, so
// a client can put it into a URL unchanged.
func holderID(h http.Header, by db.Holder) {
	if by.Owner != "" {
		h["Lock-Id"] = []string{percentEncode(by.Owner)}
	}
}

// percentEncode encodes every byte except letters, digits and -._~.
func percentEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// oneLine replaces control characters such as line breaks.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// isValue reports whether the answer is a stored value or a 304 about one.
func (c *call) isValue() bool {
	get := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	return c.api == KV && get && c.status < http.StatusBadRequest
}

// notStored tells proxies and browsers not to cache the answer, and that it depends on
// Accept.
func (c *call) notStored() {
	h := c.w.Header()
	h["Cache-Control"], h["Vary"] = noStore, vary
}

// send writes the answer of the call. No other function writes one.
func (s *server) send(c *call) {
	if c.sent {
		return
	}
	if err := s.tooLate(c); err != nil {
		// Remove the headers that describe a value.
		h := c.w.Header()
		connection := h["Connection"]
		clear(h)
		if connection != nil {
			h["Connection"] = connection
		}
		s.refuse(c, err)
	}
	c.sent = true
	s.sayStopping(c)
	if c.ctype != nil {
		c.w.Header()["Content-Type"] = c.ctype
	}
	if !c.isValue() {
		c.notStored()
	}
	if s.bodyRemains(c) {
		// With a Content-Length the client knows that the answer is complete before the
		// server has read the rest of the request.
		h := c.w.Header()
		h["Connection"], h["Content-Length"] = closeConn, []string{strconv.Itoa(len(c.body))}
		c.linger = true
	}
	if c.status != http.StatusOK {
		c.w.WriteHeader(c.status)
	}
	if len(c.body) > 0 {
		// After an error the connection is broken, so there is nothing to report.
		if err := s.pace.write(c, c.body); err != nil {
			c.status = codeGone
		}
	}
	if c.linger && http.NewResponseController(c.w).Flush() != nil {
		c.status, c.linger = codeGone, false
	}
}

// smallBody is how many bytes of a refused request's body net/http reads to keep a
// connection open. If there are more, it closes the connection.
const smallBody = 64 << 10

// bodyRemains reports whether the client may still be sending a long body after the
// answer. It reads a short one to its end.
func (s *server) bodyRemains(c *call) bool {
	n := c.r.ContentLength
	if n == 0 || c.whole || c.conn == nil {
		return false
	}
	if n > 0 && n <= smallBody && c.r.Header["Expect"] == nil {
		c.readUntil(time.Now().Add(min(s.pace.idle, front.LingerTime)))
		return false
	}
	return len(c.body) > 0
}

// sayStopping adds Connection: close to the answer once the server shuts down. So the
// client does not send its next request on a connection that is about to be reset.
func (s *server) sayStopping(c *call) {
	select {
	case <-s.draining:
		c.w.Header()["Connection"] = closeConn
	default:
	}
}
