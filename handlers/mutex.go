package handlers

import (
	"math"
	"time"
)

// defaultMutexWait is the default of wait for a mutex, unless limits.wait is less.
const defaultMutexWait = 15 * time.Second

// POST /db/:acc/mlock/:id?id=&token=&dur=&wait=&limit=&shared=&least=
func lockMutex(s *server, c *call) error {
	r, err := s.lockRequest(&c.ask, defaultMutexWait)
	if err != nil {
		return err
	}
	if c.plain != nil {
		return c.plain.lockMutex(s, r)
	}
	c.prepareWait(r.Wait)
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
	return c.say(lockResult(all))
}

// POST /db/:acc/munlock/:id?id=&token=&force=
func unlockMutex(s *server, c *call) error {
	r, err := c.unlockRequest()
	if err != nil {
		return err
	}
	if err := s.db.UnlockMutex(r); err != nil {
		return err
	}
	return c.sayDone()
}
