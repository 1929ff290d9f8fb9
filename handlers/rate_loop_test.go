package handlers

import (
	"bufio"
	"runtime"
	"sync/atomic"
	"testing"

	"clouddragon/db"
)

// leftToNetHTTP counts the calls on rates that an event loop leaves to net/http.
func leftToNetHTTP(t *testing.T) *atomic.Int64 {
	t.Helper()
	if !withLoops {
		t.Skip("SKIPPED: the server has no event loops")
	}
	left := new(atomic.Int64)
	e := find(Rate, "POST")
	was := e.serve
	e.serve = func(s *server, c *call) error {
		left.Add(1)
		return was(s, c)
	}
	t.Cleanup(func() { e.serve = was })
	return left
}

func (r *rig) wantNext(b *bufio.Reader, status int, body string) reply {
	r.t.Helper()
	a := r.read(b, "POST")
	if a.status != status || body != "*" && a.body != body {
		r.t.Errorf("got %v, want %d %q", a, status, body)
	}
	return a
}

func TestRateThatNeedNotWaitIsAnsweredInTheLoop(t *testing.T) {
	left := leftToNetHTTP(t)
	r := newRig(t, nil)
	const slow = "/db/a/rate/x?limit=3&per=10h"
	r.want(200, "2\n", "POST", slow)
	r.want(200, "1\n", "POST", slow+"&wait=10")
	r.want(200, "0\n", "POST", slow+"&wait=10", "Idempotency-Key: k")
	a := r.want(200, "0\n", "POST", slow+"&wait=10", "Idempotency-Key: k")
	wantHeaders(t, a, "Idempotency-Replayed", "true")
	for _, more := range []string{"", "&wait=0", "&wait=10"} { // ten seconds are of no use
		r.refused(409, "allows 0 more now, and 1 in 3h", "POST", slow+more)
		r.refused(409, "allows 0 more now, and 1 in 3h", "POST", slow+more, "Idempotency-Key: other")
	}
	r.refused(400, "wait must be", "POST", slow+"&wait=x")
	// Several at once, behind each other.
	r.want(204, "", "DELETE", "/db/a/rate/x")
	_, b := r.start(request("POST", slow, "") + request("POST", slow+"&cost=2&wait=1", "") + request("POST", slow, ""))
	r.wantNext(b, 200, "2\n")
	r.wantNext(b, 200, "0\n")
	r.wantNext(b, 409, "*")
	if n := left.Load(); n != 0 {
		t.Errorf("%d calls were left to net/http, want none", n)
	}
}

// A call that waits in the loop takes one place, behind those that wait already, and nobody
// overtakes it.
func TestRateThatHasToWaitTakesOnePlace(t *testing.T) {
	left := leftToNetHTTP(t)
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, nil)
	const path = "/db/a/rate/x?limit=4&per=8m"
	r.want(200, "1\n", "POST", path+"&cost=3")
	_, first := r.start(request("POST", path+"&cost=2&wait=10m", ""))
	for r.db.Stats().RateWaiters != 1 {
		runtime.Gosched()
	}
	_, second := r.start(request("POST", path+"&wait=10m", ""))
	for r.db.Stats().RateWaiters != 2 {
		runtime.Gosched()
	}
	r.refused(409, "allows 0 more now, and 1 in ", "POST", path)
	r.refused(409, "allows 0 more now, and 1 in ", "POST", path, "Idempotency-Key: k")
	r.refused(409, "allows 0 more now, and 4 in ", "POST", path+"&cost=4&wait=1m")
	r.want(204, "", "DELETE", "/db/a/rate/x")
	r.wantNext(first, 200, "*")
	r.wantNext(second, 200, "1\n")
	r.want(200, "1\n", "GET", path)
	if n := left.Load(); n != 0 {
		t.Errorf("%d calls were left to net/http, want none", n)
	}
}

// With an Idempotency-Key a call is tried in the loop, and left to net/http if it has to wait. It
// counts once.
func TestRateThatWaitsWithAKeyCountsOnce(t *testing.T) {
	left := leftToNetHTTP(t)
	r := newRig(t, nil)
	const path = "/db/a/rate/x?limit=2&per=6ms&burst=1000"
	r.want(200, "0\n", "POST", path+"&cost=1000")
	a := r.want(200, "*", "POST", path+"&cost=1000&wait=1m", "Idempotency-Key: k")
	wantHeaders(t, a, "Idempotency-Replayed", "")
	if n := left.Load(); n != 1 {
		t.Errorf("%d calls were left to net/http, want 1", n)
	}
	b := r.want(200, a.body, "POST", path+"&cost=1000&wait=1m", "Idempotency-Key: k")
	wantHeaders(t, b, "Idempotency-Replayed", "true")
	if n := left.Load(); n != 1 {
		t.Errorf("%d calls were left to net/http, want 1", n)
	}
}
