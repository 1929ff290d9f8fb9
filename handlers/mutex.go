package handlers

import (
	"math"
	"net/http"
	"time"
)

// defaultMutexWait is how long a call queues for a mutex if it does not say,
// unless the limit is less.
const defaultMutexWait = 15 * time.Second

// POST /db/:acc/mlock/:id?id=&token=&dur=&wait=&limit=&shared=&least=
func lockMutex(s *server, c *call) error {
	r, err := s.lockRequest(c, defaultMutexWait)
	if err != nil {
		return err
	}
	token, err := s.db.LockMutex(c.peer(), r)
	if err != nil {
		return err
	}
	return c.sayNumber(token)
}

// GET /db/:acc/mlock/:id?token=
func getMutex(s *server, c *call) error {
	token := c.params.number("token", 0, 1, math.MaxInt64)
	if c.params.bad != nil {
		return c.params.bad
	}
	all, err := s.db.MutexHolders(c.key, token)
	if err != nil {
		return err
	}
	holderID(c.w.Header(), all.Holders[0])
	c.status = http.StatusOK
	return c.sayJSON(held(all))
}

// POST /db/:acc/munlock/:id?id=&token=&force=
func unlockMutex(s *server, c *call) error {
	r := c.unlockRequest()
	r.Force = c.params.flag("force")
	if c.params.bad != nil {
		return c.params.bad
	}
	if err := s.db.UnlockMutex(r); err != nil {
		return err
	}
	return c.sayDone()
}
