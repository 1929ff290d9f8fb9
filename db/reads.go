package db

import (
	"context"
	"time"
)

const (
	// maxReads is how many reads of values may be under way at once. Each holds a thread
	// while the disk is slow, and the Go runtime ends a process with more than 10,000
	// threads. Each may need the file of another segment, so Options.Files limits them too.
	maxReads = 512
	// readPatience is how long a read waits for its turn.
	readPatience = 10 * time.Second
)

// reads limits the reads of values that are under way. It holds a token for each.
type reads chan struct{}

// begin waits until one more read is allowed. The error is ErrReads or the context's.
// Without an error the caller has to call end.
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
