package handlers

import (
	"context"
	"net/http"
	"time"
)

// memory bounds what large values take of it while they are sent and received,
// all together, so that a crowd of clients cannot use it up. It holds one token
// for each memoryUnit in use; what is smaller than that is not counted.
type memory chan struct{}

const (
	memoryUnit = 1 << 20
	// memoryUnits is how much there is, unless a few of the largest values need more.
	memoryUnits = 256
)

func newMemory(value int64) memory {
	return make(memory, max(memoryUnits, 4*(value/memoryUnit+1)))
}

// errCrowded is returned when there was no memory for a large value for too long.
var errCrowded = &refusal{http.StatusServiceUnavailable, "too many large values are on their way: nothing was done, try again later"}

// try takes memory for n bytes in all for a call, if it is there.
func (m memory) try(c *call, n int) bool {
	for c.held < n/memoryUnit {
		select {
		case m <- struct{}{}:
			c.held++
		default:
			return false
		}
	}
	return true
}

// hold takes memory for n bytes in all for a call, and waits for it while others
// have it.
func (m memory) hold(c *call, n int, patience time.Duration) error {
	if m.try(c, n) {
		return nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for c.held < n/memoryUnit {
		select {
		case m <- struct{}{}:
			c.held++
		case <-late.C:
			return errCrowded
		case <-c.r.Context().Done():
			return context.Canceled
		}
	}
	return nil
}

// free gives back what a call holds.
func (m memory) free(c *call) {
	for ; c.held > 0; c.held-- {
		<-m
	}
}
