package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestValueOverTheLimitIs413(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 1000 })
	full, over := strings.Repeat("x", 1000), strings.Repeat("x", 1001)
	v := r.stored(r.put("/db/1/kv/a", full))
	const part = "the limit is 1000 bytes (limits.value)"
	r.checkRefusal(r.put("/db/1/kv/a", over), 413, part, "one more")
	chunks := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(s), s) }
	r.checkRefusal(r.raw("PUT", request("PUT", "/db/1/kv/a", chunks(over), "Transfer-Encoding: chunked")), 413, part, "in chunks")
	// The length alone is enough: the client is not asked to continue.
	ask := "PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\nExpect: 100-continue\r\n\r\n"
	r.checkRefusal(r.raw("PUT", ask), 413, "9223372036854775807 bytes, "+part, "a huge length")
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", full)
	v = r.stored(r.raw("PUT", request("PUT", "/db/1/kv/a", chunks(full), "Transfer-Encoding: chunked")))
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", full)
}

func TestCutBodyStoresNothing(t *testing.T) {
	r := newRig(t, nil)
	v := r.stored(r.put("/db/1/kv/a", "whole"))
	for _, req := range []string{
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nonly",
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nonly",
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nonly\r\n0\r\n\r\n",
	} {
		c := r.dial()
		if _, err := io.WriteString(c, req); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		r.checkRefusal(r.read(bufio.NewReader(c), "PUT"), 400, "nothing was done", req)
	}
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", "whole")
}

func TestStalledBodyIsCut(t *testing.T) {
	r := newRig(t, nil)
	r.server.pace.idle = 50 * time.Millisecond
	c := r.dial()
	if _, err := io.WriteString(c, "PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nonly"); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(c)
	r.checkRefusal(r.read(b, "PUT"), 400, "stopped after 4 bytes", "a stalled body")
	if _, err := b.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on: %v", err)
	}
	for _, wait := range []string{"lock/a?wait=5m", "mlock/a?id=1"} {
		c := r.dial()
		if _, err := io.WriteString(c, "POST /db/1/"+wait+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nonly"); err != nil {
			t.Fatal(err)
		}
		r.checkRefusal(r.read(bufio.NewReader(c), "POST"), 400, "stopped after 4 bytes", wait)
	}
	// Nor does the server wait for a body that it does not use.
	var clients sync.WaitGroup
	for _, target := range []string{"/db/1/sequence/a", "/nothing", "/healthz"} {
		c := r.dial()
		clients.Go(func() {
			if _, err := io.WriteString(c, "POST "+target+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nonly"); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("%s: %v", target, err)
			}
		})
	}
	clients.Wait()
	r.refused(404, "kv", "GET", "/db/1/kv/a")
}

// A client that sends a byte now and then keeps its connection, and the memory for the whole
// body, no longer than the least rate allows.
func TestTricklingBodyIsCut(t *testing.T) {
	r := newRig(t, nil)
	r.server.pace = pace{idle: 2 * time.Second, rate: 1 << 20}
	c := r.dial()
	if _, err := fmt.Fprintf(c, "PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", 1<<20); err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-answered:
				return
			case <-tick.C:
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			}
		}
	}()
	a := r.read(bufio.NewReader(c), "PUT")
	close(answered)
	r.checkRefusal(a, 400, "", "a trickling body")
	// It has stopped if the machine held the client up.
	if !strings.Contains(a.body, "too slow") && !strings.Contains(a.body, "stopped after") {
		t.Errorf("a trickling body: %v, want that it is too slow", a)
	}
}

// The server-wide deadline is for other requests: a value may take longer as long as its bytes
// keep coming.
func TestSlowBodyIsStored(t *testing.T) {
	r := newRig(t, func(_ *Options, h *http.Server) {
		h.ReadTimeout, h.WriteTimeout = 2*time.Second, 2*time.Second
	})
	r.server.pace = pace{idle: 20 * time.Second, rate: 1}
	c := r.dial()
	if _, err := io.WriteString(c, "PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(400 * time.Millisecond)
	defer tick.Stop()
	for i := range 7 {
		<-tick.C
		if _, err := io.WriteString(c, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	v := r.stored(r.read(bufio.NewReader(c), "PUT"))
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", "0123456")
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Value = 16 << 20 })
	// The value is not stored: one that is larger than the buffers of the connection would not
	// fit into this test's segments.
	swap(t, KV, "GET", func(_ *server, c *call) error {
		c.w.Header()["Content-Length"] = []string{strconv.Itoa(64 << 20)}
		c.status, c.ctype, c.body = 200, octetStream, make([]byte, 64<<20)
		return nil
	})
	// The client may take a minute to read all of it, but it has to begin sooner.
	r.server.pace = pace{idle: 50 * time.Millisecond, rate: 1 << 20}
	c := r.dial()
	if _, err := io.WriteString(c, request("GET", "/db/1/kv/a", "")); err != nil {
		t.Fatal(err)
	}
	if o := r.observe(); o != (observed{KV, "GET", codeGone}) {
		t.Errorf("observed %v", o)
	}
}

// A Content-Length alone does not make the server allocate memory.
func TestPromisedLengthIsNotAllocated(t *testing.T) {
	s := New(Options{}).(*server)
	r := httptest.NewRequest("PUT", "/db/1/kv/a", strings.NewReader("short"))
	r.ContentLength = 8 << 20
	c := &call{w: httptest.NewRecorder(), r: r}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if b, err := s.readBody(c, 8<<20, "limits.value"); err != nil || string(b) != "short" {
		t.Fatalf("got %q %v", b, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated for a body of 5", n)
	}
}
