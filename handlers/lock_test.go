package handlers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

type holding struct {
	ID      *string
	ID64    []byte
	Token   int64
	TTL     float64
	Expires string
	Waiters int
	Holders []json.RawMessage
	Queue   []json.RawMessage
}

// holder asks who has a lock.
func (r *rig) holder(target string) holding {
	r.t.Helper()
	a := r.want(200, "*", "GET", target)
	var h holding
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil || h.ID == nil || a.header.Get("Content-Type") != "application/json" {
		r.t.Fatalf("%v: %v", a, err)
	}
	return h
}

// queued waits until a lock has the given number of waiters.
func (r *rig) queued(target string, n int) {
	r.t.Helper()
	for began := time.Now(); r.holder(target).Waiters != n; {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("there are not %d waiters", n)
		}
	}
}

// start sends a request without waiting for its answer.
func (r *rig) start(req string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, req); err != nil {
		r.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// granted checks an answer that grants and returns the token.
func (r *rig) granted(a reply) int64 {
	r.t.Helper()
	token, err := strconv.ParseInt(strings.TrimSuffix(a.body, "\n"), 10, 64)
	if a.status != 200 || err != nil || token < 1 {
		r.t.Fatalf("not granted: %v", a)
	}
	return token
}

// held checks a refusal because another holds the lock. Its headers name the holder.
func (r *rig) held(a reply, owner string, dur time.Duration) {
	r.t.Helper()
	r.checkRefusal(a, 409, "", "a held lock")
	if got := strings.Join(a.header["Lock-Id"], "|"); got != owner {
		r.t.Errorf("Lock-Id is %q, want %q", got, owner)
	}
	expires, err := time.Parse(timeFormat, a.header.Get("Lock-Expires"))
	if left := time.Until(expires); err != nil || left > dur || left < dur-20*time.Second {
		r.t.Errorf("Lock-Expires is %q: %v from now, want about %v", a.header.Get("Lock-Expires"), left, dur)
	}
	after, err := strconv.Atoi(a.header.Get("Retry-After"))
	if s := int(dur / time.Second); err != nil || after < 1 || after > s || after < s-20 {
		r.t.Errorf("Retry-After is %q, want about %d", a.header.Get("Retry-After"), s)
	}
}

func TestLock(t *testing.T) {
	r := newRig(t, nil)
	const lock = "/db/1/lock/a"
	r.refused(404, `lock "a" of account "1" is not locked`, "GET", lock)
	r.want(204, "", "DELETE", lock)
	one := r.granted(r.do("POST", lock+"?id=me%20too&dur=100"))
	h := r.holder(lock)
	expires, err := time.Parse(timeFormat, h.Expires)
	if *h.ID != "me too" || h.Token != one || h.TTL > 100 || h.TTL < 80 || h.Waiters != 0 || err != nil || len(h.Expires) != len(timeFormat) {
		t.Errorf("held by %+v", h)
	}
	if left := time.Until(expires); left > 100*time.Second || left < 80*time.Second {
		t.Errorf("it ends at %v, in %v", expires, left)
	}
	r.held(r.do("POST", lock), "me%20too", 100*time.Second)
	r.held(r.do("POST", lock+"?id=other&wait=0"), "me%20too", 100*time.Second)
	r.held(r.do("POST", lock+fmt.Sprintf("?token=%d", one+1)), "me%20too", 100*time.Second)
	if again := r.granted(r.do("POST", lock+"?id=me+too&dur=200")); again != one {
		t.Errorf("renewed with token %d, was %d", again, one)
	}
	if again := r.granted(r.do("POST", lock+fmt.Sprintf("?token=%d&dur=1h", one))); again != one || r.holder(lock).TTL < 3500 {
		t.Errorf("renewed with token %d, was %d: %+v", again, one, r.holder(lock))
	}
	r.held(r.do("DELETE", lock), "me%20too", time.Hour)
	r.held(r.do("DELETE", lock+"?id=other"), "me%20too", time.Hour)
	r.held(r.do("DELETE", lock+"?token=999"), "me%20too", time.Hour)
	r.held(r.do("DELETE", lock+"?force=false"), "me%20too", time.Hour)
	r.want(204, "", "DELETE", lock+"?id=me%20too")
	r.want(204, "", "DELETE", lock+"?id=me%20too")
	a := r.refused(409, "", "POST", lock+fmt.Sprintf("?token=%d", one))
	if a.header.Get("Lock-Expires") != "" || a.header.Get("Lock-Id") != "" {
		t.Errorf("a free lock is held: %v", a)
	}
	two := r.granted(r.do("POST", lock))
	if h := r.holder(lock); two <= one || *h.ID != "" || h.TTL > 30 || h.TTL < 10 {
		t.Errorf("token %d after %d, held by %+v", two, one, h)
	}
	r.held(r.do("POST", lock), "", 30*time.Second)
	r.want(204, "", "DELETE", lock)
	three := r.granted(r.do("POST", lock+"?id=me"))
	r.want(204, "", "DELETE", lock+fmt.Sprintf("?token=%d", three))
	r.granted(r.do("POST", lock+"?id=me"))
	r.want(204, "", "DELETE", lock+"?force=true")
	a = r.want(200, "*", "POST", lock+"?dur=0.05", "Accept: application/json")
	if !strings.HasPrefix(a.body, `{"value":`) {
		t.Errorf("got %v", a)
	}
	for began := time.Now(); r.do("GET", lock).status == 200; {
		if time.Since(began) > 20*time.Second {
			t.Fatal("it does not end")
		}
	}
}

// JSON cannot represent every id, but the answer to a GET is enough to unlock.
func TestHolderWhoseIDIsNotUTF8CanBeUnlocked(t *testing.T) {
	r := newRig(t, nil)
	const lock = "/db/1/lock/a"
	const id = "a%FF%2Fb%00"
	r.granted(r.do("POST", lock+"?id="+id))
	a := r.do("GET", lock)
	if got := a.header.Get("Lock-Id"); got != id {
		t.Errorf("Lock-Id is %q, want %q", got, id)
	}
	h := r.holder(lock)
	if string(h.ID64) != "a\xff/b\x00" {
		t.Errorf("the holder is %+v", h)
	}
	r.want(204, "", "DELETE", lock+"?id="+a.header.Get("Lock-Id"))
	r.granted(r.do("POST", lock+"?id="+id))
	r.want(204, "", "DELETE", fmt.Sprintf("%s?token=%d", lock, r.holder(lock).Token))
	r.granted(r.do("POST", lock+"?id=%C3%A9"))
	if h := r.holder(lock); h.ID64 != nil || *h.ID != "é" {
		t.Errorf("the holder is %+v", h)
	}
}

func TestMutex(t *testing.T) {
	r := newRig(t, nil)
	const lock, unlock = "/db/1/mlock/a", "/db/1/munlock/a"
	r.want(204, "", "POST", unlock)
	one := r.granted(r.do("POST", lock+"?id=me/you"))
	r.held(r.do("POST", lock+"?wait=0"), "me%2Fyou", 30*time.Second)
	r.held(r.do("POST", lock+"?wait=50ms&id=other"), "me%2Fyou", 30*time.Second)
	r.held(r.do("POST", lock+"?token=999"), "me%2Fyou", 30*time.Second)
	if again := r.granted(r.do("POST", lock+"?id=me/you&dur=100")); again != one {
		t.Errorf("renewed with token %d, was %d", again, one)
	}
	r.held(r.do("POST", unlock), "me%2Fyou", 100*time.Second)
	r.held(r.do("POST", unlock+"?id=other"), "me%2Fyou", 100*time.Second)
	both := fmt.Sprintf("?id=other&token=%d", one)
	r.checkRefusal(r.do("POST", unlock+both), 409, fmt.Sprintf(`is held, but not by id="other" with token=%d`, one), "another's id")
	r.want(204, "", "POST", unlock+fmt.Sprintf("?token=%d", one))
	r.want(204, "", "POST", unlock)
	two := r.granted(r.do("POST", lock+"?id=me"))
	if two <= one {
		t.Errorf("token %d after %d", two, one)
	}
	r.want(204, "", "POST", unlock+"?id=me")
	r.granted(r.do("POST", lock))
	// A lock of the same name is a different thing.
	if three := r.granted(r.do("POST", "/db/1/lock/a")); three <= two {
		t.Errorf("token %d after %d", three, two)
	}
	_, b := r.start(request("POST", lock+"?wait=1m", ""))
	r.want(204, "", "POST", unlock)
	r.granted(r.read(b, "POST"))
}

func TestWaitersGetTheLockInTheirOrder(t *testing.T) {
	r := newRig(t, nil)
	const lock = "/db/1/lock/a"
	last := r.granted(r.do("POST", lock))
	var queue []*bufio.Reader
	for i, req := range []string{
		request("POST", lock+"?wait=1m", ""),
		request("POST", lock, "wait=1m", asForm),
		request("POST", lock, "7\r\nwait=1m\r\n0\r\n\r\n", asForm, "Transfer-Encoding: chunked"),
		request("POST", lock, `{"wait":60}`, asJSON),
	} {
		_, b := r.start(req)
		r.queued(lock, i+1)
		queue = append(queue, b)
	}
	for _, b := range queue {
		r.want(204, "", "DELETE", lock)
		token := r.granted(r.read(b, "POST"))
		if token <= last || r.holder(lock).Token != token {
			t.Errorf("token %d after %d, held by %+v", token, last, r.holder(lock))
		}
		last = token
	}
}

func TestHungUpWaiterLeavesTheQueue(t *testing.T) {
	r := newRig(t, func(_ *Options, h *http.Server) { h.ReadTimeout = time.Minute })
	const lock = "/db/1/lock/a"
	r.granted(r.do("POST", lock+"?dur=1h"))
	r.observe()
	for name, req := range map[string]string{
		"no body":  "POST " + lock + "?wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a form":   request("POST", lock, "wait=5m"+strings.Repeat("&", 64<<10), asForm),
		"chunks":   request("POST", lock, "7\r\nwait=5m\r\n0\r\n\r\n", asForm, "Transfer-Encoding: chunked"),
		"continue": request("POST", lock, `{"wait":"5m"}`, asJSON, "Expect: 100-continue"),
	} {
		c, b := r.start(req)
		r.queued(lock, 1)
		// A half-closed connection counts as a hang-up too, and gets no answer that looks like
		// a grant.
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		r.queued(lock, 0)
		got, err := io.ReadAll(b)
		if err != nil || strings.TrimPrefix(string(got), "HTTP/1.1 100 Continue\r\n\r\n") != "" {
			t.Errorf("%s: the answer is %q %v", name, got, err)
		}
		for r.observe() != (observed{Lock, "POST", codeGone}) {
		}
	}
}

// The deadlines of the http.Server do not end a wait.
func TestWaitOutlastsTheServersTimeouts(t *testing.T) {
	r := newRig(t, func(_ *Options, h *http.Server) {
		h.ReadTimeout, h.WriteTimeout = time.Second, time.Second
	})
	for _, target := range []string{"/db/1/lock/a", "/db/1/mlock/a"} {
		r.granted(r.do("POST", target+"?wait=0&dur=100"))
		r.held(r.do("POST", target+"?wait=2"), "", 100*time.Second)
		r.held(r.put(target, "wait=2", asForm), "", 100*time.Second)
	}
}

func TestDrainAnswersWaiters(t *testing.T) {
	r := newRig(t, nil)
	for _, lock := range []string{"/db/1/mlock/a", "/db/1/lock/a"} {
		r.granted(r.do("POST", lock))
	}
	_, m := r.start(request("POST", "/db/1/mlock/a?wait=5m", ""))
	_, l := r.start(request("POST", "/db/1/lock/a?wait=5m", ""))
	r.queued("/db/1/lock/a", 1)
	r.db.Drain()
	for _, b := range []*bufio.Reader{m, l} {
		a := r.read(b, "POST")
		r.checkRefusal(a, 503, "shutting down", "a waiter")
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("got %v", a)
		}
	}
}

func TestDefaultsOfLocks(t *testing.T) {
	ask := func(l Limits, query string, wait time.Duration) db.LockRequest {
		t.Helper()
		s := New(Options{Limits: l}).(*server)
		c := &call{w: httptest.NewRecorder(), r: httptest.NewRequest("POST", "/", nil)}
		c.params.names = find(Lock, "POST").params
		if err := c.params.parse(query); err != nil {
			t.Fatal(err)
		}
		r, err := s.lockRequest(&c.ask, wait)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		limits Limits
		query  string
		wait   time.Duration
		want   db.LockRequest
	}{
		{Limits{}, "", 0, db.LockRequest{Dur: 30 * time.Second}},
		{Limits{}, "", defaultMutexWait, db.LockRequest{Dur: 30 * time.Second, Wait: 15 * time.Second}},
		{Limits{}, "wait=0", defaultMutexWait, db.LockRequest{Dur: 30 * time.Second}},
		{Limits{}, "dur=24h&wait=10m&id=x&token=7", 0, db.LockRequest{Dur: 24 * time.Hour, Wait: 10 * time.Minute, Owner: "x", Token: 7}},
		{Limits{Dur: 10 * time.Second, Wait: time.Second}, "", defaultMutexWait, db.LockRequest{Dur: 10 * time.Second, Wait: time.Second}},
	} {
		if got := ask(c.limits, c.query, c.wait); got != c.want {
			t.Errorf("%+v %q: got %+v, want %+v", c.limits, c.query, got, c.want)
		}
	}
}
