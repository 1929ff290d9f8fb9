package handlers

import "time"

// defaultMutexWait is how long a call queues for a mutex if it does not say,
// unless the limit is less.
const defaultMutexWait = 15 * time.Second

// POST /db/:acc/mlock/:id?id=&token=&dur=&wait=
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

// POST /db/:acc/munlock/:id?id=&token=
func unlockMutex(s *server, c *call) error {
	r := c.unlockRequest()
	if c.params.bad != nil {
		return c.params.bad
	}
	if err := s.db.UnlockMutex(r); err != nil {
		return err
	}
	return c.sayDone()
}
