package handlers

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"

	"clouddragon/db"
)

// idempotencyKey is the header with which a write is done only once, so it is safe to send
// again after a lost answer.
const idempotencyKey = "Idempotency-Key"

// maxRetryKey is the longest key, in bytes.
const maxRetryKey = 255

var isReplayed = []string{"true"}

// readRetryKey reads the key of a write, if it has one. A read ignores the header.
func (c *call) readRetryKey(e *endpoint) error {
	lines, given := c.r.Header[idempotencyKey]
	if !given || e.method == http.MethodGet || e.method == http.MethodOptions {
		return nil
	}
	switch c.api {
	case Lock, MLock, MUnlock:
		return errRetriedLock
	case Move, MoveData:
		return badRequest("the header %s is not for moves of accounts, whose steps can be repeated", idempotencyKey)
	case TFState:
		return badRequest("the header %s is not for Terraform states", idempotencyKey)
	}
	if len(lines) > 1 {
		return badRequest("the header %s is given twice", idempotencyKey)
	}
	var err error
	c.retryKey, err = parseRetryKey(lines[0])
	return err
}

var errRetriedLock = badRequest("the header %s is not for locks and mutexes: give id=, and a call that is sent again gets the same token", idempotencyKey)

// parseRetryKey removes the quotes of a key, if it has any, and checks it.
func parseRetryKey(line string) (string, error) {
	key := strings.Trim(line, " \t")
	opens, closes := strings.HasPrefix(key, `"`), strings.HasSuffix(key, `"`)
	if opens != closes || strings.Count(key, `"`)%2 != 0 {
		return "", badRequest("the header %s has an unbalanced quote: %s", idempotencyKey, quote(line))
	}
	if opens {
		key = key[1 : len(key)-1]
	}
	if len(key) < 1 || len(key) > maxRetryKey {
		return "", badRequest("the header %s has a key of %d characters: it may have 1 to %d", idempotencyKey, len(key), maxRetryKey)
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", badRequest("the header %s may hold printable ASCII characters only, not %s", idempotencyKey, quote(line))
		}
	}
	return key, nil
}

// requestSum returns a hash of the request. A key may be used for one request only.
func (c *call) requestSum(body []byte) (sum [sha256.Size]byte) {
	head := make([]byte, 0, 256) // on the stack, if it is not longer
	for _, part := range [...]string{c.method, c.r.URL.EscapedPath(), c.r.URL.RawQuery} {
		head = binary.BigEndian.AppendUint64(head, uint64(len(part)))
		head = append(head, part...)
	}
	if len(body) == 0 {
		return sha256.Sum256(head)
	}
	h := sha256.New()
	h.Write(head)
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

// doOnce does the operation of a request and answers with the result of say. With a retry key
// the operation is done once: its answer is stored in the same commit and replayed later.
func (s *server) doOnce(c *call, op db.Operation, say func() error) error {
	if c.retryKey == "" {
		if err := s.run(c, op, op); err != nil {
			return err
		}
		return say()
	}
	o := s.once(c, op, say)
	return o.answer(c, s.run(c, o.retry, op))
}

// once is an operation with a retry key, whose answer is stored with it.
type once struct {
	retry  *db.Retry
	before []headerLine // of the answer, before the operation is done
}

// headerLine is a line of a header. A few of them are copied more cheaply than a map.
type headerLine struct {
	name   string
	values []string
}

func (s *server) once(c *call, op db.Operation, say func() error) *once {
	o := new(once)
	for name, values := range c.w.Header() {
		o.before = append(o.before, headerLine{name, values})
	}
	o.retry = &db.Retry{
		Acc: c.key.Acc, Key: c.retryKey, Request: c.requestSum(c.sentBody), Keep: s.limits.Replay, Op: op,
		Answer: func() ([]byte, error) {
			if err := say(); err != nil {
				return nil, err
			}
			return c.keep(), nil
		},
	}
	return o
}

// answer sends the answer of the operation: its own, which is set already, or the stored one.
func (o *once) answer(c *call, err error) error {
	switch {
	case err == nil && !o.retry.Replayed:
		return nil
	case err == nil:
		return c.replay(o.retry.Kept)
	}
	// say may have run for an operation that then found no room. Discard that answer.
	h := c.w.Header()
	clear(h)
	for _, line := range o.before {
		h[line.name] = line.values
	}
	c.status, c.ctype, c.body = 0, nil, nil
	if errors.Is(err, db.ErrOtherRequest) {
		return &refusal{http.StatusUnprocessableEntity, "the " + idempotencyKey + " " + quote(c.retryKey) + " was used for another request: nothing was done"}
	}
	return err
}

// keep encodes the answer to be stored; part of the file format, never changed:
//
//	0  u16 status
//	2  u8  length of the ETag, u8 length of the Content-Type
//	4  ETag, Content-Type, body
func (c *call) keep() []byte {
	tag, ctype := "", ""
	if h := c.w.Header()[headerETag]; len(h) > 0 {
		tag = h[0]
	}
	if len(c.ctype) > 0 {
		ctype = c.ctype[0]
	}
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, 4+len(tag)+len(ctype)+len(c.body)), uint16(c.status))
	b = append(b, uint8(len(tag)), uint8(len(ctype)))
	b = append(b, tag...)
	b = append(b, ctype...)
	return append(b, c.body...)
}

// replay answers with a stored answer.
func (c *call) replay(kept []byte) error {
	if len(kept) < 4 || len(kept) < 4+int(kept[2])+int(kept[3]) {
		return db.ErrDamaged
	}
	h := c.w.Header()
	h["Idempotency-Replayed"] = isReplayed
	tag, rest := kept[4:][:kept[2]], kept[4+int(kept[2]):]
	ctype, body := rest[:kept[3]], rest[kept[3]:]
	c.status, c.ctype, c.body = int(binary.LittleEndian.Uint16(kept)), nil, body
	if len(tag) > 0 {
		h[headerETag] = []string{string(tag)}
	}
	if len(ctype) > 0 {
		c.ctype = []string{string(ctype)}
	}
	return nil
}
