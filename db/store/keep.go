package store

import (
	"context"
	"sync"
	"time"
)

// Keeper keeps the log from the moment on at which it was made, for a server that is to
// follow this one. Like a backup it is given up when it keeps too much, or when the disk is
// full. Any goroutine may call its methods.
type Keeper struct {
	mu sync.Mutex // guards b
	b  *backup    // that copies nothing
}

// KeepLog keeps the log from now on until Release.
func (s *Store) KeepLog() (*Keeper, error) {
	pin, err := s.Log.Pin(s.Log.Durable().Segment)
	if err != nil {
		return nil, err
	}
	b := &backup{s: s, pin: pin, began: time.Now()}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	s.backups.add(b)
	return &Keeper{b: b}, nil
}

// Check returns why the log is not kept any longer.
func (k *Keeper) Check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.check()
}

// Release lets the log be freed. It may be called more than once.
func (k *Keeper) Release() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.b.cancel(nil)
	return k.b.end()
}
