package db

import (
	"errors"

	"clouddragon/db/commit"
	"clouddragon/slots"
)

// Key names a thing within its API: an account and an id. Each may have any bytes but NUL,
// is not empty, and has at most MaxAcc or MaxID bytes. The caller has to check that.
type Key struct{ Acc, ID string }

// Limits of names, in bytes; part of the file format, never changed.
const (
	MaxAcc   = slots.MaxAcc
	MaxID    = slots.MaxID
	MaxOwner = 128
)

var (
	// ErrNotFound is returned when there is no such value, or the lock is free.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge is returned when a group reads more than its Budget; nothing changed.
	ErrTooLarge = errors.New("the values that are read are too large together")
	// ErrWaiters is returned when too many callers are waiting for locks.
	ErrWaiters = errors.New("too many callers are waiting for locks: try again later")
	// ErrReads is returned when too many reads of values are waiting for a slow disk.
	// Nothing changed.
	ErrReads = errors.New("too many reads are waiting for the disk: nothing was done, try again later")
	// ErrTokens is returned when the disk is too slow to make the next fencing tokens
	// durable. Nothing changed.
	ErrTokens = errors.New("the disk is too slow for more fencing tokens: nothing was changed, try again shortly")
)

// These come from the writer: see package db/commit.
var (
	ErrFull        = commit.ErrFull
	ErrDescriptors = commit.ErrDescriptors
	ErrStopping    = commit.ErrStopping
	ErrStopped     = commit.ErrStopped
	ErrUnknown     = commit.ErrUnknown
	ErrUnanswered  = commit.ErrUnanswered
)

// GroupError says which operation of a group or of a batch was refused.
type GroupError = commit.GroupError

// ConflictError is returned when the state of the thing does not allow the call: a bound,
// an overflow, another version, a lock that another caller holds. Nothing changed.
type ConflictError struct {
	Reason string // one line that names the thing or the parameter
}

func (e *ConflictError) Error() string { return e.Reason }
