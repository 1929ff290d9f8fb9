package handlers

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// memory bounds what large values take of it while they are sent and received,
// all together, so that a crowd of clients cannot use it up. It is counted in
// units of memoryUnit; what is smaller than that is not counted.
//
// A call takes all that it needs at once, in the order of asking: calls that
// each held a part and waited for the rest would wait for each other.
type memory struct {
	mu    sync.Mutex
	spare int // units
	queue []*memoryWait
}

// memoryWait is a call that waits for memory.
type memoryWait struct {
	units int
	got   chan struct{} // closed when it has it
}

const (
	memoryUnit = 1 << 20
	// memoryUnits is how much there is, unless a few of the largest values need more.
	memoryUnits = 256
)

func newMemory(value int64) *memory {
	return &memory{spare: int(max(memoryUnits, 4*(value/memoryUnit+1)))}
}

// errCrowded is returned when there was no memory for a large value for too long.
var errCrowded = &refusal{http.StatusServiceUnavailable, "too many large values are on their way: nothing was done, try again later"}

// try takes memory for n bytes for a call that holds none yet, if it is there.
func (m *memory) try(c *call, n int) bool {
	if n < memoryUnit {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) > 0 || m.spare < n/memoryUnit {
		return false
	}
	c.held = n / memoryUnit
	m.spare -= c.held
	return true
}

// hold takes memory for n bytes for a call that holds none yet, and waits for it
// while others have it.
func (m *memory) hold(c *call, n int, patience time.Duration) error {
	if m.try(c, n) {
		return nil
	}
	w := &memoryWait{n / memoryUnit, make(chan struct{})}
	m.mu.Lock()
	m.queue = append(m.queue, w)
	m.grant() // what was given back since try
	m.mu.Unlock()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.got:
		c.held = w.units
		return nil
	case <-late.C:
		m.leave(w)
		return errCrowded
	case <-c.r.Context().Done():
		m.leave(w)
		return context.Canceled
	}
}

// leave ends a wait without the memory.
func (m *memory) leave(w *memoryWait) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.queue, w); i >= 0 {
		m.queue = slices.Delete(m.queue, i, i+1)
	} else {
		m.spare += w.units // it came just now
	}
	m.grant()
}

// grant gives what there is to those who wait, the first one first.
func (m *memory) grant() {
	for len(m.queue) > 0 && m.queue[0].units <= m.spare {
		m.spare -= m.queue[0].units
		close(m.queue[0].got)
		m.queue = slices.Delete(m.queue, 0, 1)
	}
}

// free gives back what a call holds.
func (m *memory) free(c *call) {
	if c.held == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare += c.held
	c.held = 0
	m.grant()
}
