package handlers

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"
)

// memory limits the bytes that bodies and values take together while they are
// received and sent, so that many clients cannot use up the machine's memory. Every
// call gets all that it needs at once, in the order in which they asked. Calls that
// held a part and waited for the rest would wait for each other.
//
// What a call gives back is garbage until the collector has run, and counts until
// then. So the process holds at most memoryBytes of bodies and values, or four of
// the largest values if that is more. Not counted are, for each connection, a body or
// value of at most uncounted bytes and the request's headers of at most 64 KiB. The
// database adds one batch: 4 MiB, or one value if that is larger.
type memory struct {
	total int64 // bytes

	mu         sync.Mutex // guards what follows
	spare      int64      // bytes that can be given away
	garbage    int64      // bytes that were given back since the last collection began
	collecting bool       // a goroutine collects
	queue      []*memoryWait
}

// memoryWait is a call that waits for memory.
type memoryWait struct {
	size int64         // bytes
	got  chan struct{} // closed when it has it
}

const (
	memoryBytes = 256 << 20
	// uncounted is the size in bytes up to which a body or a value is not counted.
	// It is as much as a body gets before any of it is there.
	uncounted = 16 << 10
)

func newMemory(value int64) *memory {
	total := max(memoryBytes, 4*(value+1))
	return &memory{total: total, spare: total}
}

// errCrowded is returned when there was no memory for a body or a value for too long.
var errCrowded = &refusal{http.StatusServiceUnavailable, "too many large values are on their way: nothing was done, try again later"}

// hold takes memory for n bytes for a call that holds none yet. It waits while others
// have it, and refuses at once more than there is in all.
func (m *memory) hold(c *call, n int64, patience time.Duration) error {
	if n <= uncounted {
		return nil
	}
	if n > m.total {
		return errCrowded
	}
	m.mu.Lock()
	w := &memoryWait{n, make(chan struct{})}
	m.queue = append(m.queue, w)
	m.grant()
	m.mu.Unlock()
	select {
	case <-w.got:
		c.held = n
		return nil
	default:
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-w.got:
		c.held = n
		return nil
	case <-late.C:
		m.leave(w)
		return errCrowded
	case <-c.r.Context().Done():
		m.leave(w)
		return context.Canceled
	}
}

// leave ends a wait that did not get its memory.
func (m *memory) leave(w *memoryWait) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.queue, w); i >= 0 {
		m.queue = slices.Delete(m.queue, i, i+1)
	} else {
		m.spare += w.size // granted a moment ago, and not used
	}
	m.grant()
}

// grant gives spare memory to the calls that wait, in order, and starts a collection
// if the first of them needs garbage. mu must be held.
func (m *memory) grant() {
	for len(m.queue) > 0 && m.queue[0].size <= m.spare {
		m.spare -= m.queue[0].size
		close(m.queue[0].got)
		m.queue = slices.Delete(m.queue, 0, 1)
	}
	needed := m.garbage >= m.total/4 || len(m.queue) > 0 && m.garbage > 0 && m.queue[0].size <= m.spare+m.garbage
	if needed && !m.collecting {
		m.collecting = true
		go m.collect()
	}
}

// collect makes garbage spare memory, until grant has no use for more.
func (m *memory) collect() {
	m.mu.Lock()
	n := m.garbage
	m.garbage = 0
	m.mu.Unlock()
	runtime.GC() // a whole cycle: it finds all that was given back before it began
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare += n
	m.collecting = false
	m.grant()
}

// free takes n bytes back from a call that no longer refers to them.
func (m *memory) free(n int64) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.garbage += n
	m.grant()
}
