package crashtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// waiter is a client in the queue of a lock.
type waiter struct {
	raw
	name string
}

// await puts a client into a queue.
func await(t *testing.T, addr, target, name string) *waiter {
	t.Helper()
	c, err := dialRaw(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "POST "+target+"?dur=1h&wait=5m&id="+name+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return &waiter{c, name}
}

// answer waits for what a waiter is told.
func (w *waiter) answer() (answer, error) {
	if err := w.wait(); err != nil {
		return answer{}, err
	}
	r, err := http.ReadResponse(w.in, &http.Request{Method: "POST"})
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(r.Body)
	return answer{r.StatusCode, r.Header, string(b)}, err
}

// queueOf is a lock or a mutex, and how long its queue is.
type queueOf struct {
	api          string
	lock, unlock string // paths
	method       string // of unlock
	length       func() (int, error)
	c            *client
}

func (q *queueOf) free(t *testing.T, name string) {
	t.Helper()
	mustBe(t, q.c, 204, q.method, q.unlock+"?id="+name, "")
}

// waiting waits until so many wait.
func (q *queueOf) waiting(t *testing.T, n int) {
	t.Helper()
	last := -1
	err := eventually(fmt.Sprintf("%d wait for the %s", n, q.api), func() bool {
		var err error
		last, err = q.length()
		return err == nil && last == n
	})
	if err != nil {
		t.Fatalf("%v: %d do", err, last)
	}
}

func queues(c *client) []*queueOf {
	return []*queueOf{
		{
			api: "lock", lock: "/db/1/lock/a", unlock: "/db/1/lock/a", method: "DELETE", c: c,
			length: func() (int, error) {
				a, err := c.do("GET", "/db/1/lock/a", "")
				if err != nil {
					return 0, err
				}
				var h holder
				err = json.Unmarshal([]byte(a.body), &h)
				return h.Waiters, err
			},
		},
		{
			api: "mlock", lock: "/db/1/mlock/a", unlock: "/db/1/munlock/a", method: "POST", c: c,
			length: func() (int, error) { return gauge(c, `clouddragon_lock_waiters{api="mlock"}`) },
		},
	}
}

// TestWaitersAreServedInTheOrderTheyCame puts clients into one queue, of which
// some hang up: while they wait, or as they are granted what they waited for.
func TestWaitersAreServedInTheOrderTheyCame(t *testing.T) {
	begin(t)
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data")})
	c := &client{addr: s.addr}
	defer c.close()
	for _, q := range queues(c) {
		t.Run(q.api, func(t *testing.T) { inOrder(t, s, q) })
	}
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

func inOrder(t *testing.T, s *server, q *queueOf) {
	token, err := mustBe(t, q.c, 200, "POST", q.lock+"?dur=1h&id=first", "").number()
	if err != nil {
		t.Fatal(err)
	}
	holding := "first"
	// Each comes when the one before is in the queue.
	var line []*waiter
	for n := range atMost(200, 50) {
		line = append(line, await(t, s.addr, q.lock, fmt.Sprint(n)))
		q.waiting(t, n+1)
	}
	// Every seventh hangs up, by a close or a reset, and is gone at once.
	var rest []*waiter
	for n, w := range line {
		if n%7 != 3 {
			rest = append(rest, w)
			continue
		}
		if n%2 == 0 {
			if err := w.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		q.waiting(t, len(line)-1-(n+1-len(rest))+1)
	}
	// Every fifth of the others hangs up just before it is granted the lock.
	for n := 0; n < len(rest); n++ {
		gone := n%5 == 2 && n+1 < len(rest)
		if gone {
			if err := rest[n].Close(); err != nil {
				t.Fatal(err)
			}
		}
		q.free(t, holding)
		if gone {
			n++
		}
		a, err := rest[n].answer()
		if err != nil || a.status != 200 {
			t.Fatalf("%s: %v, %v", rest[n].name, a, err)
		}
		next, err := a.number()
		if err != nil || next <= token {
			t.Fatalf("%s has token %d after %d, %v", rest[n].name, next, token, err)
		}
		token, holding = next, rest[n].name
		q.waiting(t, len(rest)-n-1)
	}
	q.free(t, holding)
}

// TestStopAnswersWhoeverWaits ends the server while clients wait for locks.
func TestStopAnswersWhoeverWaits(t *testing.T) {
	begin(t)
	t.Parallel()
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data")})
	c := &client{addr: s.addr}
	defer c.close()
	var line []*waiter
	for _, q := range queues(c) {
		mustBe(t, c, 200, "POST", q.lock+"?dur=1h", "")
		for n := range 100 {
			line = append(line, await(t, s.addr, q.lock, fmt.Sprint(n)))
		}
		q.waiting(t, 100)
	}
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for n, w := range line {
		a, err := w.answer()
		if err != nil || a.status != 503 || a.header.Get("Retry-After") == "" || strings.Count(a.body, "\n") != 1 {
			t.Errorf("waiter %d: %v with Retry-After %q, %v", n, a, a.header.Get("Retry-After"), err)
		}
	}
	t.Logf("%d waiters were answered, and it ended, in %v", len(line), time.Since(began))
	if err := s.trouble(); err != nil {
		t.Error(err)
	}
}

// TestStopDoesNotWaitForSlowClients ends the server while clients send and read
// as slowly as they can.
func TestStopDoesNotWaitForSlowClients(t *testing.T) {
	begin(t)
	t.Parallel()
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data")})
	c := &client{addr: s.addr}
	mustBe(t, c, 200, "PUT", "/db/1/kv/large", strings.Repeat("l", 4<<20))
	for _, text := range []string{
		"",
		"POST /db/1/sequence/a HTTP/1.1\r\nHo",
		"PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc",
		"GET /db/1/kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		slow, err := crowdOf(s.addr, 20, func(int) string { return text })
		defer hangUp(slow)
		if err != nil {
			t.Fatal(err)
		}
	}
	mustBe(t, c, 404, "GET", "/db/1/kv/a", "")
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}
