package handlers

import (
	"context"
	"time"

	"clouddragon/db"
)

// defaultMutexWait is how long a call queues for a mutex if it does not say,
// unless the limit is less.
const defaultMutexWait = 15 * time.Second

// POST /db/:acc/mlock/:id?id=&token=&dur=&wait=
func lockMutex(s *server, c *call) error {
	r, err := s.lockRequest(c, defaultMutexWait)
	if err != nil {
		return err
	}
	token, err := s.mutexes().LockMutex(c.r.Context(), r)
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
	if err := s.mutexes().UnlockMutex(r); err != nil {
		return err
	}
	return c.sayDone()
}

// mutexes is what is asked of the database here.
type mutexes interface {
	LockMutex(context.Context, db.LockRequest) (int64, error)
	UnlockMutex(db.UnlockRequest) error
}

func (s *server) mutexes() mutexes { return any(s.db).(mutexes) }
