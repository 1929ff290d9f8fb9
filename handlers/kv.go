package handlers

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"clouddragon/db"
)

// GET /db/:acc/kv/:id?ver=
//
// A value is read only after memory for all of it is granted. So for a large value, and
// if the answer may not need the value, only the head is read first.
func getValue(s *server, c *call) error {
	ver := c.params.number("ver", db.AnyVersion, 0, math.MaxInt64)
	if c.params.bad != nil {
		return c.params.bad
	}
	q, err := c.conditions()
	if err != nil {
		return err
	}
	head := c.r.Method == http.MethodHead
	most := uncounted
	if head || q.Match.Given || q.NoneMatch.Given {
		most = -1
	}
	for race := 1; ; race++ {
		v, err := s.db.Read(c.r.Context(), c.key, most)
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		if conflict := db.CheckVersion(c.key.ID, v.Version, ver); conflict != nil {
			return conflict
		}
		if err != nil {
			return err
		}
		h := c.w.Header()
		tag := etag(v.Version)
		lines := &[2]string{tag, tag[1 : len(tag)-1]}
		h[headerETag], h["Version"] = lines[0:1:1], lines[1:2:2]
		c.sayTTL(v.Left)
		if q.Match.Given && !q.Match.Has(v.Version) {
			return &db.MatchError{Match: true, Version: v.Version}
		}
		if q.NoneMatch.Has(v.Version) {
			c.status = http.StatusNotModified
			return nil
		}
		if head || len(v.Data) == v.Size {
			return c.sayValue(v)
		}
		if c.plain != nil {
			return errOdd
		}
		if race == maxRaces {
			return errCrowded
		}
		// The value may have been replaced by one that is larger than the memory granted.
		s.memory.free(c.held)
		c.held = 0
		if err := s.memory.hold(c, int64(v.Size), memoryPatience*s.pace.idle); err != nil {
			return err
		}
		most = max(v.Size, uncounted)
	}
}

// sayValue answers with a value, or with the part that a Range asks for.
func (c *call) sayValue(v db.Value) error {
	h := c.w.Header()
	lines := &[2]string{v.Type} // the headers' lines, in one piece of memory
	c.status, c.ctype, c.body = http.StatusOK, lines[0:1:1], v.Data
	if v.Type == "" {
		c.ctype = octetStream
	}
	if v.Encoding != "" {
		h["Content-Encoding"] = []string{v.Encoding}
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
	lines[1] = strconv.Itoa(size)
	h["Content-Length"] = lines[1:2:2]
	h["Content-Security-Policy"] = sandbox
	h["X-Content-Type-Options"] = noSniff
	return nil
}

// POST and PUT /db/:acc/kv/:id?ver=&ttl=&lock=&token=
var setValue = durable(
	func(_ *server, a *ask) (*db.ValueSet, error) {
		op := &db.ValueSet{Key: a.key, Data: a.value, Type: a.typ, Encoding: a.encoding, Conditions: a.cond}
		op.Check = a.params.number("ver", db.AnyVersion, 0, math.MaxInt64)
		op.TTL = a.params.ttl()
		op.Fence = a.params.fence()
		return op, a.params.bad
	},
	func(op *db.ValueSet) result {
		r := numbered(op.Version)
		r.etag = op.Version
		return r
	},
)

// PATCH /db/:acc/kv/:id?ttl=&ver=&lock=&token=
var setTTL = durable(
	func(_ *server, a *ask) (*db.ValueTTL, error) {
		if a.params.text("ttl") == "" {
			return nil, badRequest("ttl is missing: give a duration, or none for no end")
		}
		op := &db.ValueTTL{Key: a.key, Conditions: a.cond, TTL: a.params.ttl(), Fence: a.params.fence()}
		op.Check = a.params.number("ver", db.AnyVersion, 1, math.MaxInt64)
		return op, a.params.bad
	},
	func(op *db.ValueTTL) result {
		r := numbered(op.Version)
		r.etag = op.Version
		return r
	},
)

// DELETE /db/:acc/kv/:id?ver=&lock=&token=
var deleteValue = durable(
	func(_ *server, a *ask) (*db.ValueDelete, error) {
		op := &db.ValueDelete{Key: a.key, Conditions: a.cond}
		op.Check = a.params.number("ver", db.AnyVersion, 1, math.MaxInt64)
		op.Fence = a.params.fence()
		return op, a.params.bad
	},
	func(*db.ValueDelete) result { return done() },
)

// GET /db/:acc/kv/:id?ver= in a batch
var readValue = durable(
	func(_ *server, a *ask) (*db.ValueRead, error) {
		op := &db.ValueRead{Key: a.key, Conditions: a.cond}
		op.Check = a.params.number("ver", db.AnyVersion, 0, math.MaxInt64)
		return op, a.params.bad
	},
	func(op *db.ValueRead) result { return result{status: http.StatusOK, value: &op.Value} },
)

// maxRaces is how often a read of a value is tried again because another change came
// between. In practice it is never reached.
const maxRaces = 100

// readHeaders reads the headers of a call on a value.
func (c *call) readHeaders(e *endpoint) (err error) {
	if e.takesValue() {
		if c.typ, err = c.contentType(); err != nil {
			return err
		}
		if c.encoding, err = c.contentEncoding(); err != nil {
			return err
		}
	}
	c.cond, err = c.conditions()
	return err
}

// contentType returns the Content-Type to store with the value.
func (c *call) contentType() (string, error) {
	t := strings.TrimSpace(c.r.Header.Get("Content-Type"))
	if len(t) > db.MaxType {
		return "", badRequest("the header Content-Type has %d bytes: it may have at most %d", len(t), db.MaxType)
	}
	return keptType(t), nil
}

// contentEncoding returns the Content-Encoding to store with the value.
func (c *call) contentEncoding() (string, error) {
	e := strings.Join(c.r.Header["Content-Encoding"], ", ")
	if len(e) > db.MaxEncoding {
		return "", badRequest("the header Content-Encoding has %d bytes: it may have at most %d", len(e), db.MaxEncoding)
	}
	return e, nil
}

// keptType returns the type to store for a Content-Type. The form type that curl sends
// with --data says nothing about the value.
func keptType(t string) string {
	if t == "" || strings.EqualFold(t, form) {
		return octetStream[0]
	}
	return t
}
