package db

import (
	"errors"
	"sync/atomic"
)

// tokenBlock is how many tokens are made durable at once. A crash skips what is
// left of a block.
const tokenBlock = 1 << 20

// tokens hands out fencing tokens, for locks and mutexes alike. They grow, and
// a limit above all that were handed out is durable before they are used.
type tokens struct {
	last  atomic.Int64 // handed out
	limit atomic.Int64 // durable: every token handed out is below
}

// lockToken is the token of the next grant of a lock. Where the block is used
// up, the batch that holds the grant makes the next block durable too.
func (d *DB) lockToken() int64 {
	t := d.tokens.last.Add(1)
	if t+1 >= max(d.tokens.limit.Load(), d.batch.tokens) {
		d.batch.tokens = t + tokenBlock
	}
	return t
}

// mutexToken is the token of the next grant of a mutex. The next block is asked
// for when half of this one is used, so that no grant waits for the disk.
func (d *DB) mutexToken() (int64, error) {
	t := d.tokens.last.Add(1)
	left := d.tokens.limit.Load() - t
	if left <= tokenBlock/2 && d.reserving.CompareAndSwap(false, true) && d.useFiles() {
		go d.reserve()
	}
	switch {
	case left > 0:
		return t, nil
	case d.Err() != nil:
		return 0, ErrStopped
	case d.draining.Load():
		return 0, ErrStopping
	case d.noTokens.Load():
		return 0, ErrFull
	}
	return 0, ErrTokens
}

// reserve asks for the next block.
func (d *DB) reserve() {
	defer d.background.Done()
	defer d.reserving.Store(false)
	o := newOp(verbReserve, kindLock, Key{})
	defer o.free()
	err := d.do(o)
	d.noTokens.Store(errors.Is(err, ErrFull))
	if err != nil {
		d.logger.Warn("no new block of tokens", "err", err)
	}
}

// decideReserve makes a block of tokens durable.
func (d *DB) decideReserve() {
	d.batch.tokens = max(d.batch.tokens, d.tokens.last.Load()+tokenBlock)
}
