package db

import (
	"errors"
	"time"
)

// Key names a thing within its API: the account and the id, any bytes but NUL,
// at most MaxAcc and MaxID bytes, neither empty. Whoever calls has checked that.
type Key struct{ Acc, ID string }

// Limits of names, in bytes; part of the file format, never changed.
const (
	MaxAcc   = 64
	MaxID    = 255
	MaxOwner = 128
)

// MaxBlock is the largest block of sequence numbers that one call reserves.
const MaxBlock = 1_000_000

var (
	// ErrNotFound is returned when there is no such value, or the lock is free.
	ErrNotFound = errors.New("not found")
	// ErrFull is returned when the disk has no room for the write; nothing
	// changed, and the same call works again once there is room.
	ErrFull = errors.New("the disk is full: nothing was changed; free some space and try again")
	// ErrStopping is returned when the server shuts down; nothing changed.
	ErrStopping = errors.New("the server is shutting down: try again shortly")
	// ErrWaiters is returned when too many callers wait for locks already.
	ErrWaiters = errors.New("too many callers are waiting for locks: try again later")
	// ErrReads is returned when too many reads of values have waited for the disk
	// for too long; nothing changed.
	ErrReads = errors.New("too many reads are waiting for the disk: nothing was done, try again later")
	// ErrDescriptors is returned when no file descriptor was left for the call;
	// nothing changed.
	ErrDescriptors = errors.New("the server has no file descriptor left for this: nothing was done, try again later")
	// ErrTokens is returned when the disk is too slow to make the next fencing
	// tokens durable; nothing changed.
	ErrTokens = errors.New("the disk is too slow for more fencing tokens: nothing was changed, try again shortly")
	// ErrStopped is returned when writes are stopped since the disk failed
	// earlier; nothing changed.
	ErrStopped = errors.New("writes are stopped: the disk failed")
	// ErrUnknown is returned when the disk failed during this very write: it is
	// there after the next start, or not.
	ErrUnknown = errors.New("the disk failed during this write: its outcome is unknown")
)

// ConflictError is returned when the state of the thing does not allow the
// call: a bound, an overflow, a version, a lock that another holds. Nothing changed.
type ConflictError struct {
	Reason string // one line, names the thing or the parameter
}

func (e *ConflictError) Error() string { return e.Reason }

// HeldError is returned when a lock is held by another, also after the wait ran
// out, or a token that renews or unlocks is not the holder's. Nothing changed.
type HeldError struct {
	Reason string // one line
	Holder Holder // the zero Holder where the lock is free
}

func (e *HeldError) Error() string { return e.Reason }

// Holder is what is known of a held lock.
type Holder struct {
	Owner   string        // the id it was locked with; empty if it was locked without
	Token   int64         // the fencing token
	TTL     time.Duration // until it is free by itself
	Expires time.Time     // the same as wall time
	Waiters int           // places in the queue: callers with the same id share one
}

// Waiter is a place in the queue of a lock.
type Waiter struct {
	Owner  string        // the id that its callers gave; empty if they gave none
	Waited time.Duration // how long it has been waiting
}

// MaxListed is the most holders and the most waiters that are listed.
const MaxListed = 100

// Holders are all that hold a lock and wait for it, as far as they are listed.
type Holders struct {
	Holders []Holder // the oldest first; at least one
	Queue   []Waiter // the first in line first
}

// LockRequest asks for a mutex or a lock.
type LockRequest struct {
	Key   Key
	Owner string        // names the holder, at most MaxOwner bytes; may be empty
	Token int64         // if not 0: renew only, if this token holds
	Dur   time.Duration // how long it is held, from the grant
	Wait  time.Duration // how long to queue for it; 0: answer at once

	// The following are for mutexes only.

	Limit  int           // a semaphore: how many may hold it at once, at most MaxHolders; 0: one
	Shared bool          // a reader: any number of readers hold it at once; not with Limit
	Least  time.Duration // it stays held for that long from the grant, also if it is given back or expires earlier
}

// MaxHolders is the largest limit of a semaphore.
const MaxHolders = 1_000_000

// UnlockRequest gives a mutex or a lock back.
type UnlockRequest struct {
	Key   Key
	Owner string
	Token int64 // 0: none given
	Force bool  // whoever holds it, all holders
}

// Value is what a key holds.
type Value struct {
	Data    []byte // nil where it was not read
	Size    int    // bytes of Data
	Type    string // Content-Type
	Version int64
}

// AnyVersion as a check means that no version is asked for.
const AnyVersion = -1

// SetRequest stores a value.
type SetRequest struct {
	Key   Key
	Data  []byte
	Type  string        // Content-Type, at most MaxType bytes
	TTL   time.Duration // 0: for good
	Check int64         // AnyVersion, 0 (there is no value now), or the version it must have now
}

// MaxType is the longest Content-Type kept, in bytes.
const MaxType = 255
