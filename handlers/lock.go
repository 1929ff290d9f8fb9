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
	c.status = http.StatusOK
	return c.sayJSON(heldBy(h))
}

// heldJSON is who holds a lock.
type heldJSON struct {
	ID      string  `json:"id"`             // with U+FFFD for what is no UTF-8
	ID64    []byte  `json:"id64,omitempty"` // the same in base64, if it is no UTF-8
	Token   int64   `json:"token"`
	TTL     float64 `json:"ttl"` // seconds, to the millisecond
	Expires string  `json:"expires"`
	Waiters int     `json:"waiters"`
	*listsJSON
}

// listsJSON are all holders and waiters of a lock, as far as they are listed.
type listsJSON struct {
	Holders []heldJSON   `json:"holders"`
	Queue   []waiterJSON `json:"queue"`
}

// waiterJSON is who waits for a lock.
type waiterJSON struct {
	ID     string  `json:"id"`             // with U+FFFD for what is no UTF-8
	ID64   []byte  `json:"id64,omitempty"` // the same in base64, if it is no UTF-8
	Waited float64 `json:"waited"`         // seconds, to the millisecond
}

func heldBy(h db.Holder) heldJSON {
	return heldJSON{
		ID:      h.Owner,
		ID64:    notUTF8(h.Owner),
		Token:   h.Token,
		TTL:     seconds(h.TTL),
		Expires: h.Expires.UTC().Format(timeFormat),
		Waiters: h.Waiters,
	}
}

// held is the oldest holder, with lists of all if there is another or a waiter.
func held(all db.Holders) heldJSON {
	first := heldBy(all.Holders[0])
	if len(all.Holders) == 1 && len(all.Queue) == 0 {
		return first
	}
	lists := &listsJSON{Holders: []heldJSON{}, Queue: []waiterJSON{}}
	for _, h := range all.Holders {
		lists.Holders = append(lists.Holders, heldBy(h))
	}
	for _, w := range all.Queue {
		lists.Queue = append(lists.Queue, waiterJSON{w.Owner, notUTF8(w.Owner), seconds(w.Waited)})
	}
	first.listsJSON = lists
	return first
}

// notUTF8 returns an id that is no UTF-8, or nil.
func notUTF8(id string) []byte {
	if utf8.ValidString(id) {
		return nil
	}
	return []byte(id)
}

// seconds is a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

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
	if c.api == MLock {
		s.modeOf(c, &r)
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

// modeOf reads who else may hold the lock, and for how long it stays held in any case.
func (s *server) modeOf(c *call, r *db.LockRequest) {
	r.Limit = int(c.params.number("limit", 0, 1, db.MaxHolders))
	r.Shared = c.params.flag("shared")
	r.Least = c.params.duration("least", 0, s.limits.Dur, true)
	if r.Limit != 0 && r.Shared {
		c.params.fail(badRequest("limit and shared=true exclude each other: give one of them"))
	}
}

// unlockRequest reads what a lock or a mutex is given back with.
func (c *call) unlockRequest() db.UnlockRequest {
	return db.UnlockRequest{
		Key:   c.key,
		Owner: c.params.owner("id", db.MaxOwner),
		Token: c.params.number("token", 0, 1, math.MaxInt64),
	}
}
