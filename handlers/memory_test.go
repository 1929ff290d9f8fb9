package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Large values on their way take no more memory than there is: who finds none is
// refused after a while, and nothing is left taken.
func TestLargeValuesShareTheMemoryThereIs(t *testing.T) {
	r := newRig(t, nil)
	r.server.memory = &memory{spare: 2}
	r.server.pace.idle = 200 * time.Millisecond
	value := strings.Repeat("v", memoryUnit)

	v := r.stored(r.put("/db/1/kv/a", value))
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", value)

	// Others hold it all.
	others := call{r: httptest.NewRequest("GET", "/", nil)}
	if err := r.server.memory.hold(&others, 2*memoryUnit, time.Minute); err != nil {
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
	// Small values do not need it.
	r.stored(r.put("/db/1/kv/small", "v"))

	// One that waits has it as soon as it is given back.
	r.server.pace.idle = time.Minute
	c = r.dial()
	if _, err := io.WriteString(c, request("GET", "/db/1/kv/a", "")); err != nil {
		t.Fatal(err)
	}
	r.server.memory.free(&others)
	r.value(r.read(bufio.NewReader(c), "GET"), v, "application/octet-stream", value)
	if err := r.server.memory.hold(&others, 2*memoryUnit, time.Minute); err != nil {
		t.Errorf("an answered call keeps memory: %v", err)
	}
}

// Calls that wait for memory each get all of theirs in turn, where a part each
// would be of use to none.
func TestWhoWaitsForMemoryGetsAllOfItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{spare: 4}
		newCall := func() *call { return &call{r: httptest.NewRequest("GET", "/", nil)} }
		others := newCall()
		if err := m.hold(others, 4*memoryUnit, time.Minute); err != nil {
			t.Fatal(err)
		}
		answers := make(chan error, 3)
		for range cap(answers) {
			go func() {
				c := newCall()
				err := m.hold(c, 3*memoryUnit, time.Minute)
				m.free(c)
				answers <- err
			}()
		}
		synctest.Wait()
		m.free(others)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if m.spare != 4 || len(m.queue) != 0 {
			t.Errorf("%d units are spare and %d calls wait, want 4 and none", m.spare, len(m.queue))
		}
	})
}

// One that gives up, or hangs up, is not in the way of those behind it.
func TestWhoStopsWaitingForMemoryLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{spare: 4}
		others, big, small := new(call), new(call), new(call)
		for _, c := range []*call{others, big, small} {
			c.r = httptest.NewRequest("GET", "/", nil)
		}
		if err := m.hold(others, 2*memoryUnit, time.Minute); err != nil {
			t.Fatal(err)
		}
		late := make(chan error)
		go func() { late <- m.hold(big, 3*memoryUnit, time.Second) }()
		synctest.Wait()
		if err := m.hold(small, memoryUnit, time.Minute); err != nil {
			t.Errorf("behind one that gives up: %v", err)
		}
		if err := <-late; err != errCrowded {
			t.Errorf("got %v, want %v", err, errCrowded)
		}
	})
}

// Two large bodies that come side by side, where there is memory for one, are
// both stored, one after the other.
func TestLargeBodiesSideBySideDoNotWaitForEachOther(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 2 * memoryUnit })
	r.server.memory = &memory{spare: 2}
	r.server.pace.idle = 10 * time.Second
	value := strings.Repeat("v", 2*memoryUnit)
	const part = memoryUnit * 3 / 4
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
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 2 * memoryUnit })
	r.stored(r.put("/db/1/kv/a", strings.Repeat("v", 2*memoryUnit)))
	r.observe()
	r.server.memory = &memory{}
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
