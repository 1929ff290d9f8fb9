package db

import (
	"errors"

	"clouddragon/db/commit"
)

// mutexToken returns the token of the next grant of a mutex of an account. When half of a
// block of tokens is used, it asks for the next block, so that no grant waits for the disk.
func (d *DB) mutexToken(acc string) (int64, error) {
	if err := d.Admit(acc); err != nil {
		return 0, err
	}
	token, left := d.tokens.Take()
	if left <= commit.TokenBlock/2 {
		d.reserveTokens()
	}
	switch {
	case left > 0:
		return token, nil
	case d.Err() != nil:
		return 0, ErrStopped
	case d.draining.Load():
		return 0, ErrStopping
	case d.noTokens.Load():
		return 0, ErrFull
	}
	return 0, ErrTokens
}

// reserveTokens asks for the next block of tokens, unless that was done already.
func (d *DB) reserveTokens() {
	if !d.reserving.CompareAndSwap(false, true) {
		return
	}
	c := &Call{Op: commit.ReserveTokens{}, Done: func(c *Call) {
		if c.Err != nil {
			d.log.Warn("no new block of tokens", "err", c.Err)
		}
		d.noTokens.Store(errors.Is(c.Err, ErrFull))
		d.reserving.Store(false)
	}}
	if d.writer.Queue(c) != nil { // the server stops
		d.reserving.Store(false)
	}
}
