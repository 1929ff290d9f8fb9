package handlers

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"
)

// memory limits the bytes of all bodies and values that are being received and sent, so
// that many clients cannot use up the machine's memory. Calls get memory in the order in
// which they ask, each all that it needs at once. If a call could hold a part and wait for
// the rest, calls could wait for each other.
//
// Memory that a call gives back is garbage, and it counts until the collector has run. So
// bodies and values take at most memoryBytes, or four of the largest values if that is
// more. For each connection, a body or value of at most uncounted bytes and up to 64 KiB
// of headers are not counted. The database adds one batch: 4 MiB, or one value if that is
// larger.
type memory struct {
	total int64 // bytes

	mu         sync.Mutex // guards what follows
	spare      int64      // bytes that are free
	garbage    int64      // bytes given back since the last collection began
	collecting bool       // a goroutine runs a collection
	queue      []*memoryWait
}

// memoryWait is a call that waits for memory.
type memoryWait struct {
	size int64         // bytes
	got  chan struct{} // closed when the memory is granted
}

const (
	memoryBytes = 256 << 20
	// uncounted is the size in bytes up to which a body or a value is not counted. A body
	// gets this much before any of it has been received.
	uncounted = 16 << 10
)

func newMemory(value int64) *memory {
	total := max(memoryBytes, 4*(value+1))
	return &memory{total: total, spare: total}
}

// errCrowded is returned when a call has waited too long for memory.
var errCrowded = &refusal{http.StatusServiceUnavailable, "too many large values are on their way: nothing was done, try again later"}

// hold takes n bytes for a call that holds none yet. It waits until they are free. It
// refuses at once if n is more than the total.
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

// leave ends a wait without memory.
func (m *memory) leave(w *memoryWait) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.queue, w); i >= 0 {
		m.queue = slices.Delete(m.queue, i, i+1)
	} else {
		m.spare += w.size // it was granted just now, but is not used
	}
	m.grant()
}

// grant gives spare memory to the waiting calls in order. If the first one needs more, it
// starts a collection. mu must be held.
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

// collect turns garbage into spare memory until grant needs no more.
func (m *memory) collect() {
	m.mu.Lock()
	n := m.garbage
	m.garbage = 0
	m.mu.Unlock()
	runtime.GC() // a whole cycle, so it frees everything that was given back before
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare += n
	m.collecting = false
	m.grant()
}

// free gives back n bytes of a call that no longer refers to them.
func (m *memory) free(n int64) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.garbage += n
	m.grant()
}
