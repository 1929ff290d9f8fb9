package handlers

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"clouddragon/db"
)

// maxTTL is how long a value with a ttl may live.
const maxTTL = 100 * 365 * 24 * time.Hour

// GET /db/:acc/kv/:id
//
// A value is read only once memory for all of it is granted: of a large one, at
// first just the head is read, and so it is where the answer may need no more.
func getValue(s *server, c *call) error {
	q, err := c.conditions(db.AnyVersion)
	if err != nil {
		return err
	}
	nonMatch := q.nonMatch
	q.nonMatch = etags{} // which is no failure here
	head := c.r.Method == http.MethodHead
	most := uncounted
	if head || q.match.given || nonMatch.given {
		most = -1
	}
	for race := 1; ; race++ {
		v, err := s.db.Read(c.r.Context(), c.key, most)
		if err != nil {
			return err
		}
		h := c.w.Header()
		h["ETag"] = []string{etag(v.Version)}
		h["Version"] = []string{strconv.FormatInt(v.Version, 10)}
		if err := q.check(c, v.Version); err != nil {
			return err
		}
		if nonMatch.has(v.Version) {
			c.status = http.StatusNotModified
			return nil
		}
		if head || len(v.Data) == v.Size {
			return c.sayValue(v)
		}
		if race == maxRaces {
			return errCrowded
		}
		// It may be larger by now than what was granted for it.
		s.memory.free(c.held)
		c.held = 0
		if err := s.memory.hold(c, int64(v.Size), memoryPatience*s.pace.idle); err != nil {
			return err
		}
		most = max(v.Size, uncounted)
	}
}

// sayValue says a value, or the part of it that a Range asks for.
func (c *call) sayValue(v db.Value) error {
	h := c.w.Header()
	c.status, c.ctype, c.body = http.StatusOK, []string{v.Type}, v.Data
	if v.Type == "" {
		c.ctype = octetStream
	}
	size := v.Size
	if c.r.Method == http.MethodGet {
		part, ok, err := c.byteRange(v)
		if err != nil {
			c.ctype, c.body = nil, nil
			return err
		}
		if ok {
			c.status, c.body = http.StatusPartialContent, v.Data[part.from:part.to]
			h["Content-Range"] = []string{part.of(v.Size)}
			size = len(c.body)
		}
	}
	h["Accept-Ranges"] = bytesUnit
	h["Content-Length"] = []string{strconv.Itoa(size)}
	h["Content-Security-Policy"] = sandbox
	h["X-Content-Type-Options"] = noSniff
	return nil
}

// POST and PUT /db/:acc/kv/:id?ver=&ttl=
func setValue(s *server, c *call) error {
	ver := c.params.number("ver", db.AnyVersion, 0, math.MaxInt64)
	ttl := c.params.duration("ttl", 0, maxTTL, false)
	if c.params.bad != nil {
		return c.params.bad
	}
	typ, err := c.contentType()
	if err != nil {
		return err
	}
	q, err := c.conditions(ver)
	if err != nil {
		return err
	}
	data, err := s.readBody(c, s.limits.Value, "limits.value")
	if err != nil {
		return err
	}
	c.patience()
	c.brief()
	var version int64
	err = s.changeIf(c, &q, func(check int64) error {
		version, err = s.db.Set(db.SetRequest{Key: c.key, Data: data, Type: typ, TTL: ttl, Check: check})
		return err
	})
	if err != nil {
		return err
	}
	c.w.Header()["ETag"] = []string{etag(version)}
	return c.sayNumber(version)
}

// DELETE /db/:acc/kv/:id?ver=
func deleteValue(s *server, c *call) error {
	ver := c.params.number("ver", db.AnyVersion, 1, math.MaxInt64)
	if c.params.bad != nil {
		return c.params.bad
	}
	q, err := c.conditions(ver)
	if err != nil {
		return err
	}
	err = s.changeIf(c, &q, func(check int64) error {
		if check == 0 {
			return nil // nothing to delete
		}
		return s.db.DeleteValue(c.key, check)
	})
	if err != nil {
		return err
	}
	return c.sayDone()
}

// maxRaces is how often a change under a condition is tried again since another
// change came between: far more than a sane client ever meets.
const maxRaces = 100

// changeIf makes a change where the conditions hold. ver alone is left to the
// database. What headers say is held against the version of now, and the change
// asks for just that version: if another came between, all is looked at anew.
func (s *server) changeIf(c *call, q *conditions, change func(check int64) error) error {
	if !q.match.given && !q.nonMatch.given {
		return change(q.ver)
	}
	for race := 1; ; race++ {
		v, err := s.db.Head(c.r.Context(), c.key) // Version 0 if there is none
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		if err := q.check(c, v.Version); err != nil {
			return err
		}
		err = change(v.Version)
		var conflict *db.ConflictError
		if !errors.As(err, &conflict) || race == maxRaces {
			return err
		}
	}
}

// contentType returns what to keep as the value's type. What curl sends with
// --data says nothing about the value.
func (c *call) contentType() (string, error) {
	t := strings.TrimSpace(c.r.Header.Get("Content-Type"))
	if len(t) > db.MaxType {
		return "", badRequest("the header Content-Type has %d bytes: it may have at most %d", len(t), db.MaxType)
	}
	if t == "" || strings.EqualFold(t, form) {
		t = octetStream[0]
	}
	return t, nil
}
