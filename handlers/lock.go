package handlers

import (
	"math"
	"net/http"
	"time"
	"unicode/utf8"

	"clouddragon/db"
)

// defaultDur is how long a lock is held if the client does not say, unless the
// limit is less.
const defaultDur = 30 * time.Second

// POST /db/:acc/lock/:id?id=&token=&dur=&wait=
func takeLock(s *server, c *call) error {
	r, err := s.lockRequest(c, 0)
	if err != nil {
		return err
	}
	token, err := s.db.Lock(c.peer(), r)
	if err != nil {
		return err
	}
	return c.sayNumber(token)
}

// GET /db/:acc/lock/:id
func getLock(s *server, c *call) error {
	h, err := s.db.LockHolder(c.key)
	if err != nil {
		return err
	}
	holderID(c.w.Header(), h)
	held := heldJSON{h.Owner, nil, h.Token, float64(h.TTL.Milliseconds()) / 1000, h.Expires.UTC().Format(timeFormat), h.Waiters}
	if !utf8.ValidString(h.Owner) {
		held.ID64 = []byte(h.Owner)
	}
	c.status = http.StatusOK
	return c.sayJSON(held)
}

// heldJSON is who holds a lock.
type heldJSON struct {
	ID      string  `json:"id"`             // with U+FFFD for what is no UTF-8
	ID64    []byte  `json:"id64,omitempty"` // the same in base64, if it is no UTF-8
	Token   int64   `json:"token"`
	TTL     float64 `json:"ttl"` // seconds, to the millisecond
	Expires string  `json:"expires"`
	Waiters int     `json:"waiters"`
}

// DELETE /db/:acc/lock/:id?id=&token=&force=
func releaseLock(s *server, c *call) error {
	r := c.unlockRequest()
	r.Force = c.params.flag("force")
	if c.params.bad != nil {
		return c.params.bad
	}
	if err := s.db.Unlock(r); err != nil {
		return err
	}
	return c.sayDone()
}

// lockRequest reads what a lock or a mutex is asked with. If it may wait, no
// deadline ends the connection meanwhile.
func (s *server) lockRequest(c *call, defaultWait time.Duration) (db.LockRequest, error) {
	r := db.LockRequest{
		Key:   c.key,
		Owner: c.params.owner("id", db.MaxOwner),
		Token: c.params.number("token", 0, 1, math.MaxInt64),
		Dur:   c.params.duration("dur", min(defaultDur, s.limits.Dur), s.limits.Dur, false),
		Wait:  c.params.duration("wait", min(defaultWait, s.limits.Wait), s.limits.Wait, true),
	}
	if c.params.bad != nil {
		return r, c.params.bad
	}
	if r.Wait == 0 {
		c.brief()
		return r, nil
	}
	c.patience()
	return r, nil
}

// unlockRequest reads what a lock or a mutex is given back with.
func (c *call) unlockRequest() db.UnlockRequest {
	return db.UnlockRequest{
		Key:   c.key,
		Owner: c.params.owner("id", db.MaxOwner),
		Token: c.params.number("token", 0, 1, math.MaxInt64),
	}
}
