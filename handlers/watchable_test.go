package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

// ask sends a request and returns the reader for its answer.
func (r *rig) ask(method, target string) <-chan reply {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, request(method, target, "")); err != nil {
		r.t.Fatal(err)
	}
	answer := make(chan reply, 1)
	go func() {
		defer c.Close()
		answer <- r.read(bufio.NewReader(c), method)
	}()
	return answer
}

// watching waits until the given number of callers watch.
func (r *rig) watching(n int64) {
	r.t.Helper()
	for began := time.Now(); r.db.Stats().Watch.Watchers != n; runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("%d watch, want %d", r.db.Stats().Watch.Watchers, n)
		}
	}
}

func (r *rig) answered(answer <-chan reply, status int, body string) reply {
	r.t.Helper()
	select {
	case a := <-answer:
		if a.status != status || body != "*" && a.body != body {
			r.t.Errorf("got %v, want %d %q", a, status, body)
		}
		return a
	case <-time.After(20 * time.Second):
		r.t.Fatal("there is no answer")
		return reply{}
	}
}

func TestWatchedGetAnswersOnceThereIsAChange(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct {
		path, none   string
		make, change [2]string
		status       int
		body         string
	}{
		{"/db/1/sequence/a", "1\n", [2]string{"POST", "/db/1/sequence/a"}, [2]string{"POST", "/db/1/sequence/a?n=5"}, 200, "6\n"},
		{"/db/1/counter/a", "-3\n", [2]string{"POST", "/db/1/counter/a?add=-3"}, [2]string{"DELETE", "/db/1/counter/a"}, 404, "*"},
		{"/db/1/kv/a", "", [2]string{"PUT", "/db/1/kv/a"}, [2]string{"DELETE", "/db/1/kv/a"}, 404, "*"},
		{"/db/1/lock/a", "*", [2]string{"POST", "/db/1/lock/a"}, [2]string{"DELETE", "/db/1/lock/a?force=true"}, 404, "*"},
		{"/db/1/mlock/a", "*", [2]string{"POST", "/db/1/mlock/a"}, [2]string{"POST", "/db/1/munlock/a?force=true"}, 404, "*"},
	} {
		none := r.ask("GET", c.path+"?not=none&wait=10m")
		r.watching(1)
		made := strings.TrimSpace(r.want(200, "*", c.make[0], c.make[1]).body)
		r.answered(none, 200, c.none)
		r.watching(0)

		r.want(304, "", "GET", c.path+"?not="+made+"&wait=0")
		r.want(304, "", "HEAD", c.path+"?not="+made+"&wait=1ms")
		r.want(200, c.none, "GET", c.path+"?not=none&wait=10m")

		other := r.ask("GET", c.path+"?not="+made)
		r.watching(1)
		if a := r.do(c.change[0], c.change[1]); a.status >= 300 {
			t.Fatal(a)
		}
		r.answered(other, c.status, c.body)
	}
}

func TestWatchedGetRefuses(t *testing.T) {
	r := newRigOn(t, db.Options{Watchers: 1}, nil)
	for _, c := range [][2]string{
		{"/db/1/kv/a?wait=3", "wait needs not="},
		{"/db/1/kv/a?not=x", "not must be none or a whole number"},
		{"/db/1/kv/a?not=-1", "not must be none or a whole number"},
		{"/db/1/kv/a?not=", "not is empty"},
		{"/db/1/kv/a?not=none&wait=11m", "wait must be a duration"},
		{"/db/1/kv/a?not=none&ver=3", "not and ver exclude each other"},
		{"/db/1/lock/a?not=none&token=3", "not and token exclude each other"},
		{"/db/1/mlock/a?not=none&token=3", "not and token exclude each other"},
	} {
		r.refused(400, c[1], "GET", c[0])
	}
	r.want(404, "*", "GET", "/db/1/counter/a?not=-1")
	first := r.ask("GET", "/db/1/kv/a?not=none")
	r.watching(1)
	if a := r.refused(503, "too many watchers", "GET", "/db/1/kv/b?not=none"); a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	r.db.Drain()
	if a := r.answered(first, 503, "*"); a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}

// TestWatcherThatHangsUpLeaves has already sent its next request, which hides the hang-up from
// net/http.
func TestWatcherThatHangsUpLeaves(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/db/1/kv/a", "/db/1/counter/a", "/db/1/sequence/a", "/db/1/lock/a", "/db/1/mlock/a"} {
		c := r.dial()
		if _, err := fmt.Fprint(c, request("GET", path+"?not=none&wait=10m", ""), request("GET", path, "")); err != nil {
			t.Fatal(err)
		}
		r.watching(1)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		r.watching(0)
	}
}

// TestWatchedGetOutlivesTheDeadlines waits longer than a client may take to read.
func TestWatchedGetOutlivesTheDeadlines(t *testing.T) {
	r := newRig(t, func(_ *Options, s *http.Server) {
		s.ReadTimeout, s.WriteTimeout = time.Second, time.Second
	})
	for _, id := range []string{"a", "%61"} { // an event loop leaves the second one to net/http
		r.answered(r.ask("GET", "/db/1/counter/"+id+"?not=none&wait=2"), 304, "")
	}
}
