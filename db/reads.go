package db

import (
	"context"
	"time"
)

const (
	// maxReads is how many reads of values may be under way at once. Each holds a
	// thread while the disk is slow, and the Go runtime ends a process with more
	// than 10,000 threads. Each may need another segment's file, so Options.Files bounds
	// them too.
	maxReads = 512
	// readPatience is how long a read waits until it may begin.
	readPatience = 10 * time.Second
)

// reads bounds the reads of values that are under way: it has a token for each.
type reads chan struct{}

// begin waits until one more read may be under way. The error is ErrReads, or
// that of the context; without one, end has to follow.
func (r reads) begin(ctx context.Context) error {
	select {
	case r <- struct{}{}:
		return nil
	default:
	}
	late := time.NewTimer(readPatience)
	defer late.Stop()
	select {
	case r <- struct{}{}:
		return nil
	case <-late.C:
		return ErrReads
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r reads) end() { <-r }
