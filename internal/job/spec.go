package job

import (
	"context"
	"time"
)

// Exit codes, besides those of the command.
const (
	ExitUsage       = 64
	ExitUnavailable = 69
	ExitHeld        = 75 // held by another, granted too late, or lost
	ExitDenied      = 77
)

// Spec is what a keeper does.
type Spec struct {
	Lock      Lock
	Name      string // of the lock
	Dur       time.Duration
	KillAfter time.Duration // from TERM to KILL
	Command   []string
}

// Lock is a lock on a server. Its methods end early when the context does, except GiveBack,
// which takes a few seconds at most. Several may run at a time.
type Lock interface {
	// Take takes the lock. It is held at least until end, on the clock of package boottime.
	Take(context.Context) (token int64, end time.Duration, err error)
	// Renew prolongs the lock and returns its new end.
	Renew(ctx context.Context, token int64) (end time.Duration, err error)
	GiveBack(token int64) error
	// Code returns the exit code for an error of the other methods: ExitHeld means that the
	// lock is not held.
	Code(error) int
}

// grant is what Take returned, and renewal what Renew returned.
type grant struct {
	token int64
	end   time.Duration
	err   error
}

type renewal struct {
	end time.Duration
	err error
}
