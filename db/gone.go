package db

import "context"

// Peer may be implemented by the context of a call that waits for a lock. Gone is called
// before a grant from the queue is answered, because another goroutine cancels the
// context and may be late.
type Peer interface {
	// Gone reports whether the caller has hung up.
	Gone() bool
}

// gone returns an error if the caller has left.
func gone(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p, ok := ctx.(Peer); ok && p.Gone() {
		return context.Canceled
	}
	return nil
}
