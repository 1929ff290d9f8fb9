package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/front"
)

// waiters waits until the given number of calls wait, for anything.
func (r *rig) waiters(n int) {
	r.t.Helper()
	for began := time.Now(); ; runtime.Gosched() {
		s := r.db.Stats()
		waiting := s.Locks.Waiting + s.Mutexes.Waiting + s.RateWaiters + int(s.Watch.Watchers)
		if waiting == n {
			return
		}
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("%d wait, want %d", waiting, n)
		}
	}
}

// waitingCalls has a call of each kind that waits, and what ends the wait with that answer.
var waitingCalls = []struct {
	name         string
	before       [2]string
	method, path string
	end          [2]string
	status       int
	next         string // hands it on to the next one, with the token; empty: all are answered at once
}{
	{"mutex", [2]string{"POST", "/db/a/mlock/x?id=other"}, "POST", "/db/a/mlock/x?wait=10m", [2]string{"POST", "/db/a/munlock/x?id=other"}, 200, "/db/a/munlock/x?token="},
	{"lock", [2]string{"POST", "/db/a/lock/x?id=other"}, "POST", "/db/a/lock/x?wait=10m", [2]string{"DELETE", "/db/a/lock/x?id=other"}, 200, "/db/a/lock/x?token="},
	{"rate", [2]string{"POST", "/db/a/rate/x?limit=200&per=10m&cost=200"}, "POST", "/db/a/rate/x?limit=200&per=10m&wait=10m", [2]string{"DELETE", "/db/a/rate/x"}, 200, ""},
	{"watched sequence", [2]string{}, "GET", "/db/a/sequence/x?not=none&wait=10m", [2]string{"POST", "/db/a/sequence/x"}, 200, ""},
	{"watched counter", [2]string{"POST", "/db/a/counter/x"}, "GET", "/db/a/counter/x?not=1&wait=10m", [2]string{"DELETE", "/db/a/counter/x"}, 404, ""},
	{"watched value", [2]string{}, "GET", "/db/a/kv/x?not=none&wait=10m", [2]string{"PUT", "/db/a/kv/x"}, 200, ""},
	{"watched lock", [2]string{}, "GET", "/db/a/lock/x?not=none&wait=10m", [2]string{"POST", "/db/a/lock/x"}, 200, ""},
	{"watched mutex", [2]string{}, "GET", "/db/a/mlock/x?not=none&wait=10m", [2]string{"POST", "/db/a/mlock/x"}, 200, ""},
}

// TestWaitInALoopTakesNoGoroutine has many clients wait, each with its next request behind.
func TestWaitInALoopTakesNoGoroutine(t *testing.T) {
	if !withLoops {
		t.Skip("SKIPPED: the server has no event loops")
	}
	const many = 50
	for _, c := range waitingCalls {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			if c.before[0] != "" {
				r.do(c.before[0], c.before[1])
			}
			var conns []*bufio.Reader
			request := request(c.method, c.path, "") + request("GET", "/healthz", "")
			before := 0
			for i := range many {
				if i == 1 {
					before = runtime.NumGoroutine()
				}
				_, b := r.start(request)
				conns = append(conns, b)
				r.waiters(i + 1)
			}
			if n := runtime.NumGoroutine() - before; n > many/4 {
				t.Errorf("%d waits take %d goroutines", many-1, n)
			}
			if a := r.do(c.end[0], c.end[1]); a.status >= http.StatusMultipleChoices {
				t.Fatal(a)
			}
			for i, b := range conns {
				a := r.read(b, c.method)
				if a.status != c.status {
					t.Errorf("got %v, want %d", a, c.status)
				}
				if c.next != "" && i < many-1 { // the next one in the queue
					r.do(c.end[0], c.next+strings.TrimSpace(a.body))
				}
				if a := r.read(b, "GET"); a.status != http.StatusOK {
					t.Errorf("the next request: %v", a)
				}
			}
			r.waiters(0)
		})
	}
}

// TestWaitEndsWithTheClient hangs up before and after the next request was sent.
func TestWaitEndsWithTheClient(t *testing.T) {
	for _, c := range waitingCalls {
		for _, next := range []string{"", request("GET", "/healthz", "")} {
			r := newRig(t, nil)
			if c.before[0] != "" {
				r.do(c.before[0], c.before[1])
			}
			conn := r.dial()
			if _, err := fmt.Fprint(conn, request(c.method, c.path, ""), next); err != nil {
				t.Fatal(err)
			}
			r.waiters(1)
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			r.waiters(0)
		}
	}
}

// TestWaitEndsWithADrain is answered that the server stops.
func TestWaitEndsWithADrain(t *testing.T) {
	for _, c := range waitingCalls {
		r := newRig(t, nil)
		if c.before[0] != "" {
			r.do(c.before[0], c.before[1])
		}
		_, b := r.start(request(c.method, c.path, ""))
		r.waiters(1)
		r.db.Drain()
		if a := r.read(b, c.method); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %v, want 503 with Retry-After", c.name, a)
		}
		r.waiters(0)
	}
}

// A mutex that is free is not granted to a client that had hung up before its request was read.
func TestFreeMutexIsNotGrantedToWhoIsGone(t *testing.T) {
	r := newRig(t, nil)
	for _, target := range []string{"/db/a/mlock/x", "/db/a/mlock/y?wait=1m"} {
		request, err := http.NewRequest("POST", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "localhost"
		if v := Plain(r.server).Start(&front.Exchange{Request: request, Gone: true}); v != front.Aborted {
			t.Errorf("%s: the verdict is %d, want Aborted", target, v)
		}
		path, _, _ := strings.Cut(target, "?")
		r.want(404, "*", "GET", path)
	}
}

// TestHalfClosedClientIsToldWhatIsKnown asks without having to wait, and closes its own side, as nc -N
// does.
func TestHalfClosedClientIsToldWhatIsKnown(t *testing.T) {
	r := newRig(t, nil)
	r.do("POST", "/db/a/lock/held")
	r.do("POST", "/db/a/mlock/held")
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "lock/free?not=none&wait=0", 304},
		{"GET", "lock/free?not=7&wait=10m", 404},
		{"GET", "lock/held?not=none&wait=10m", 200},
		{"GET", "mlock/free?not=none&wait=0", 304},
		{"GET", "mlock/held?not=none&wait=10m", 200},
		{"GET", "kv/none?not=none&wait=0", 304},
		{"GET", "kv/none?not=3&wait=10m", 404},
		{"GET", "counter/none?not=3&wait=10m", 404},
		{"POST", "lock/taken?wait=0", 200},
		{"POST", "mlock/taken?wait=0", 200},
		{"POST", "mlock/held?wait=0", 409},
	} {
		conn, b := r.start(request(c.method, "/db/a/"+c.target, ""))
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if a := r.read(b, c.method); a.status != c.status {
			t.Errorf("%s %s: got %v, want %d", c.method, c.target, a, c.status)
		}
	}
	// What has to wait counts as gone.
	conn, b := r.start(request("GET", "/db/a/lock/free?not=none&wait=10m", ""))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadByte(); err != io.EOF {
		t.Errorf("a half-closed client that has to wait: %v, want the end", err)
	}
	r.waiters(0)
}
