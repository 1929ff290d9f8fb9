package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
)

func memoryOf(bytes int64) *memory { return &memory{total: bytes, spare: bytes} }

// Large values in flight take no more memory than is allowed. A call that gets none is refused
// after a while, and all memory is given back.
func TestLargeValuesShareTheMemoryThereIs(t *testing.T) {
	r := newRig(t, nil)
	r.server.memory = memoryOf(2 << 20)
	value := strings.Repeat("v", 1<<20-1)

	v := r.stored(r.put("/db/1/kv/a", value))
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", value)
	r.server.pace.idle = time.Second

	// Other calls hold all of it.
	others := call{r: httptest.NewRequest("GET", "/", nil)}
	if err := r.server.memory.hold(&others, 2<<20, time.Minute); err != nil {
		t.Fatalf("an answered call keeps memory: %v", err)
	}
	c := r.dial()
	if _, err := fmt.Fprintf(c, "PUT /db/1/kv/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(value), value); err != nil {
		t.Fatal(err)
	}
	answer := r.read(bufio.NewReader(c), "PUT")
	r.checkRefusal(answer, 503, "too many large values", "a large value that finds no memory")
	if got := answer.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
	r.refused(503, "too many large values", "GET", "/db/1/kv/a")
	r.refused(404, "kv", "GET", "/db/1/kv/b")
	// Small values need none of it.
	r.stored(r.put("/db/1/kv/small", "v"))

	// A waiting call gets memory as soon as it is given back.
	r.server.pace.idle = time.Minute
	c = r.dial()
	if _, err := io.WriteString(c, request("GET", "/db/1/kv/a", "")); err != nil {
		t.Fatal(err)
	}
	r.server.memory.free(others.held)
	r.value(r.read(bufio.NewReader(c), "GET"), v, "application/octet-stream", value)
	if err := r.server.memory.hold(&others, 2<<20, time.Minute); err != nil {
		t.Errorf("an answered call keeps memory: %v", err)
	}
}

// Calls that wait for memory each get all of theirs in turn. If each got a part, none could go
// on.
func TestWaiterForMemoryGetsAllOfItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(4 << 20)
		newCall := func() *call { return &call{r: httptest.NewRequest("GET", "/", nil)} }
		others := newCall()
		if err := m.hold(others, 4<<20, time.Minute); err != nil {
			t.Fatal(err)
		}
		answers := make(chan error, 3)
		for range cap(answers) {
			go func() {
				c := newCall()
				err := m.hold(c, 3<<20, time.Minute)
				m.free(c.held)
				answers <- err
			}()
		}
		synctest.Wait()
		m.free(others.held)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait() // until nothing is collected any more
		m.mu.Lock()
		defer m.mu.Unlock()
		if free := m.spare + m.garbage; free != 4<<20 || len(m.queue) != 0 {
			t.Errorf("%d bytes are free and %d calls wait, want all and none", free, len(m.queue))
		}
	})
}

// A call that gives up or hangs up does not block the calls behind it.
func TestEndedWaitForMemoryLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(4 << 20)
		others, big, small := new(call), new(call), new(call)
		for _, c := range []*call{others, big, small} {
			c.r = httptest.NewRequest("GET", "/", nil)
		}
		if err := m.hold(others, 2<<20, time.Minute); err != nil {
			t.Fatal(err)
		}
		late := make(chan error)
		go func() { late <- m.hold(big, 3<<20, time.Second) }()
		synctest.Wait()
		if err := m.hold(small, 1<<20, time.Minute); err != nil {
			t.Errorf("behind one that gives up: %v", err)
		}
		if err := <-late; err != errCrowded {
			t.Errorf("got %v, want %v", err, errCrowded)
		}
	})
}

// If two large bodies arrive together and there is memory for one, both are stored, one after
// the other.
func TestLargeBodiesSideBySideDoNotWaitForEachOther(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 2 << 20 })
	r.server.memory = memoryOf(2 << 20)
	r.server.pace.idle = 10 * time.Second
	value := strings.Repeat("v", 2<<20-1)
	const part = 3 << 18
	a, b := r.dial(), r.dial()
	for i, c := range []net.Conn{a, b} {
		if _, err := fmt.Fprintf(c, "PUT /db/1/kv/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", i, len(value), value[:part]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []net.Conn{a, b} {
		go io.WriteString(c, value[part:])
	}
	for _, c := range []net.Conn{a, b} {
		r.stored(r.read(bufio.NewReader(c), "PUT"))
	}
}

func TestHangUpIsNoticedWhileALargeValueWaitsForMemory(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 2 << 20 })
	r.stored(r.put("/db/1/kv/a", strings.Repeat("v", 2<<20-1)))
	r.observe()
	r.server.memory = &memory{total: 2 << 20}
	c := r.dial()
	if _, err := io.WriteString(c, "GET /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := r.observe(), (observed{KV, "GET", codeGone}); got != want {
		t.Errorf("observed %v, want %v", got, want)
	}
}

// A value that is not part of the answer is not read: for a HEAD, for a condition that fails,
// and if it has not changed.
func TestOnlyAGetReadsAValue(t *testing.T) {
	fs := memdisk.New()
	r := newRigOn(t, db.Options{FS: fs}, nil)
	value := strings.Repeat("v", 1<<20)
	v := r.stored(r.put("/db/1/kv/a", value))
	r.server.memory = memoryOf(0) // so that no memory is granted either
	var read atomic.Int64
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read {
			read.Add(op.Len)
		}
		return nil
	})
	match, other := fmt.Sprintf(`"%d"`, v), fmt.Sprintf(`"%d"`, v+1)
	if a := r.want(200, "", "HEAD", "/db/1/kv/a"); a.length != int64(len(value)) {
		t.Errorf("HEAD: Content-Length is %d, want %d", a.length, len(value))
	}
	r.want(304, "", "GET", "/db/1/kv/a", "If-None-Match: "+match)
	r.want(304, "", "HEAD", "/db/1/kv/a", "If-None-Match: "+match)
	r.want(412, "*", "GET", "/db/1/kv/a", "If-Match: "+other)
	r.want(412, "*", "DELETE", "/db/1/kv/a", "If-Match: "+other)
	r.want(409, "*", "DELETE", fmt.Sprintf("/db/1/kv/a?ver=%d", v+1))
	for _, header := range []string{"If-Match: " + other, "If-None-Match: *"} {
		if a := r.put("/db/1/kv/a", "new", header); a.status != 412 {
			t.Errorf("POST with %s: %v", header, a)
		}
	}
	r.refused(503, "too many large values", "GET", "/db/1/kv/a")
	r.want(204, "", "DELETE", "/db/1/kv/a", "If-Match: "+match)
	if n := read.Load(); n > 64<<10 {
		t.Errorf("%d bytes were read of a value that nobody was sent", n)
	}
}

// Bodies and values count from the first byte beyond what every connection may take.
func TestBodiesBelowAMebibyteCount(t *testing.T) {
	r := newRig(t, nil)
	r.server.memory = memoryOf(20_000)
	value := strings.Repeat("v", 19_000)
	r.stored(r.put("/db/1/kv/a", value))
	r.stored(r.put("/db/1/kv/a", value))
	r.server.pace.idle = time.Second
	others := call{r: httptest.NewRequest("GET", "/", nil)}
	if err := r.server.memory.hold(&others, 17_000, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.checkRefusal(r.put("/db/1/kv/b", value), 503, "too many large values", "a body that finds no memory")
	r.refused(503, "too many large values", "GET", "/db/1/kv/a")
	r.want(200, "", "HEAD", "/db/1/kv/a")
	r.server.pace.idle = time.Minute
	r.server.memory.free(others.held)
	r.want(200, value, "GET", "/db/1/kv/a")
}

// Memory that is held, together with memory that may not have been collected yet, stays within
// the total at all times.
func TestGarbageCountsUntilItIsCollected(t *testing.T) {
	m := memoryOf(8 << 20)
	one := &call{r: httptest.NewRequest("GET", "/", nil)}
	if err := m.hold(one, 1<<20, time.Minute); err != nil {
		t.Fatal(err)
	}
	m.free(one.held)
	m.mu.Lock()
	spare := m.spare
	m.mu.Unlock()
	if spare != 7<<20 {
		t.Errorf("%d bytes can be given away before a collection, want %d", spare, 7<<20)
	}
	var held, most atomic.Int64
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for round := range 20 {
				c := &call{r: httptest.NewRequest("GET", "/", nil)}
				n := int64(17_000 + (i*7919+round*104_729)%(4<<20))
				if err := m.hold(c, n, time.Minute); err != nil {
					t.Error(err)
					return
				}
				now := held.Add(n)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				held.Add(-n)
				m.free(c.held)
			}
		})
	}
	clients.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if most.Load() > m.total || len(m.queue) > 0 {
		t.Errorf("%d bytes were held of %d, %d calls wait still", most.Load(), m.total, len(m.queue))
	}
}
