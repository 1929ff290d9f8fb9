package db

import "context"

// Peer may be implemented by the context of a call that waits for a lock. It is asked
// before a grant from the queue is answered, because the context is cancelled
// by another goroutine and may be late.
type Peer interface {
	// Gone reports whether the caller has hung up.
	Gone() bool
}

// gone says why there is nobody to answer; nil if there is somebody.
func gone(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p, ok := ctx.(Peer); ok && p.Gone() {
		return context.Canceled
	}
	return nil
}
