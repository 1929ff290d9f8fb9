package handlers

import (
	"math"
	"net/http"
	"time"
	"unicode/utf8"

	"clouddragon/db"
)

// defaultDur is the default of dur, unless limits.dur is less.
const defaultDur = 30 * time.Second

// POST /db/:acc/lock/:id?id=&token=&dur=&wait=&limit=&shared=&least=
func takeLock(s *server, c *call) error {
	r, err := s.lockRequest(&c.ask, 0)
	if err != nil {
		return err
	}
	c.prepareWait(r.Wait)
	token, err := s.db.Lock(c.peer(), r)
	if err != nil {
		return err
	}
	return c.sayNumber(token)
}

// GET /db/:acc/lock/:id?token= in a batch or an event loop
var readLock = durable(
	func(_ *server, a *ask) (*db.LockRead, error) {
		op := &db.LockRead{Key: a.key, Token: a.params.number("token", 0, 1, math.MaxInt64)}
		return op, a.params.bad
	},
	func(op *db.LockRead) result { return lockResult(op.Holders) },
)

// lockResult tells who holds a lock.
func lockResult(all db.Holders) result {
	return result{status: http.StatusOK, json: held(all), owner: all.Holders[0].Owner}
}

// POST /db/:acc/lock/:id without a wait, in a batch or an event loop
var tryLock = durable(
	func(s *server, a *ask) (*db.LockTake, error) {
		r, err := s.lockRequest(a, 0)
		return &db.LockTake{LockRequest: r}, err
	},
	func(op *db.LockTake) result { return numbered(op.Holder.Token) },
)

// heldJSON is a holder of a lock.
type heldJSON struct {
	ID      string  `json:"id"`             // with U+FFFD for bytes that are not UTF-8
	ID64    []byte  `json:"id64,omitempty"` // the same in base64, if it is not UTF-8
	Token   int64   `json:"token"`
	TTL     float64 `json:"ttl"` // seconds, to the millisecond
	Expires string  `json:"expires"`
	Waiters int     `json:"waiters"`
	*listsJSON
}

// listsJSON has the first holders and waiters of a lock.
type listsJSON struct {
	Holders []heldJSON   `json:"holders"`
	Queue   []waiterJSON `json:"queue"`
}

// waiterJSON is a waiter for a lock.
type waiterJSON struct {
	ID     string  `json:"id"`             // with U+FFFD for bytes that are not UTF-8
	ID64   []byte  `json:"id64,omitempty"` // the same in base64, if it is not UTF-8
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

// held returns the JSON of a lock: the oldest holder, and the lists of holders and waiters
// if there is another holder or a waiter.
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

// notUTF8 returns the id as bytes if it is not UTF-8, otherwise nil.
func notUTF8(id string) []byte {
	if utf8.ValidString(id) {
		return nil
	}
	return []byte(id)
}

// seconds returns a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// DELETE /db/:acc/lock/:id?id=&token=&force=
var releaseLock = durable(
	func(_ *server, a *ask) (*db.LockRelease, error) {
		r, err := a.unlockRequest()
		return &db.LockRelease{UnlockRequest: r}, err
	},
	func(*db.LockRelease) result { return done() },
)

// lockRequest reads the parameters of a call that takes a lock or a mutex.
func (s *server) lockRequest(a *ask, defaultWait time.Duration) (db.LockRequest, error) {
	p := &a.params
	r := db.LockRequest{
		Key:   a.key,
		Owner: p.owner("id", db.MaxOwner),
		Token: p.number("token", 0, 1, math.MaxInt64),
		Dur:   p.duration("dur", min(defaultDur, s.limits.Dur), s.limits.Dur, false),
		Wait:  p.duration("wait", min(defaultWait, s.limits.Wait), s.limits.Wait, true),
	}
	s.modeOf(p, &r)
	return r, p.bad
}

// modeOf reads limit, shared and least.
func (s *server) modeOf(p *params, r *db.LockRequest) {
	r.Limit = int(p.number("limit", 0, 1, db.MaxHolders))
	r.Shared = p.flag("shared")
	r.Least = p.duration("least", 0, s.limits.Dur, true)
	if r.Limit != 0 && r.Shared {
		p.fail(badRequest("limit and shared=true exclude each other: give one of them"))
	}
}

// unlockRequest reads the parameters of a call that gives a lock or a mutex back.
func (a *ask) unlockRequest() (db.UnlockRequest, error) {
	p := &a.params
	r := db.UnlockRequest{
		Key:   a.key,
		Owner: p.owner("id", db.MaxOwner),
		Token: p.number("token", 0, 1, math.MaxInt64),
		Force: p.flag("force"),
	}
	return r, p.bad
}

// prepareWait removes the deadlines of a call that may wait for a lock.
func (c *call) prepareWait(wait time.Duration) {
	if wait == 0 {
		c.brief()
		return
	}
	c.patience()
}
