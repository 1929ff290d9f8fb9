package db

import "context"

// Peer may be implemented by the context of a call that waits for a lock. Before
// a grant from the queue is answered, the caller is asked for: a context ends by
// another goroutine, which can be too late for that.
type Peer interface {
	// Gone says whether the caller has hung up already.
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
