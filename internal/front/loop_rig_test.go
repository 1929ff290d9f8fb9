package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakePlain answers /N at once, submits POSTs, and leaves /odd to net/http.
type fakePlain struct {
	start  func(x *Exchange) Verdict
	submit func(xs []*Exchange, lead bool)
	finish func(x *Exchange) Verdict
	resume func(x *Exchange) Verdict
	leave  func(x *Exchange)
	led    atomic.Int32
}

func say(x *Exchange, s string) {
	x.Header()["Content-Type"] = []string{"text/plain"}
	_, _ = x.Write([]byte(s))
}

func (f *fakePlain) Start(x *Exchange) Verdict {
	if f.start != nil {
		return f.start(x)
	}
	switch {
	case x.Request.URL.Path == "/odd":
		return Odd
	case x.Request.Method == "POST":
		return Pending
	case x.Behind:
		return Later
	}
	say(x, x.Request.URL.Path)
	return Answered
}

func (f *fakePlain) Submit(xs []*Exchange, lead bool) {
	if lead {
		f.led.Add(1)
	}
	if f.submit != nil {
		f.submit(xs, lead)
		return
	}
	for _, x := range xs {
		x.Done()
	}
}

func (f *fakePlain) Finish(x *Exchange) Verdict {
	if f.finish != nil {
		return f.finish(x)
	}
	say(x, "done "+x.Request.URL.Path)
	return Answered
}

func (f *fakePlain) Resume(x *Exchange) Verdict { return f.resume(x) }

func (f *fakePlain) Leave(x *Exchange) { f.leave(x) }

// loopRig is a server with a loop. Each answer of net/http says that it is from net/http.
type loopRig struct {
	t    *testing.T
	l    *Listener
	addr string
}

func newLoopRig(t *testing.T, f Plain, most int, set func(*http.Server)) *loopRig {
	t.Helper()
	return newLoopsRig(t, f, most, 1, set)
}

func newLoopsRig(t *testing.T, f Plain, most, loops int, set func(*http.Server)) *loopRig {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ConnContext: ConnContext, ConnState: ConnState,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Begin(r)
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "net/http %s %s %q", r.Method, r.URL.Path, body)
		}),
	}
	if set != nil {
		set(s)
	}
	l := NewListener(inner, Options{Max: most})
	o := LoopOptions{Plain: f, Loops: loops, HeaderTime: s.ReadHeaderTimeout, IdleTime: s.IdleTimeout, ReadTime: s.WriteTimeout}
	s.WriteTimeout = 0
	if err := l.StartLoops(o); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.EndLoops(0)
			_ = s.Close() // the listener is closed
			<-served
		}()
		soon(t, "the end of the server", ended)
	})
	return &loopRig{t, l, inner.Addr().String()}
}

// soon returns what comes from a channel.
func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal(what, "does not come")
		panic("not reached")
	}
}

func (r *loopRig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func (r *loopRig) send(c net.Conn, s string) {
	r.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		r.t.Fatal(err)
	}
}

// want reads one answer.
func (r *loopRig) want(b *bufio.Reader, body string) {
	r.t.Helper()
	a, err := http.ReadResponse(b, nil)
	if err != nil {
		r.t.Fatalf("want %q: %v", body, err)
	}
	got, err := io.ReadAll(a.Body)
	if err != nil || string(got) != body {
		r.t.Errorf("got %q, %v, want %q", got, err, body)
	}
}

func ask(method, path string) string { return method + " " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }

// hold keeps submitted exchanges until they are released.
type hold struct {
	mu  sync.Mutex // guards xs
	xs  []*Exchange
	got chan int
}

func newHold() *hold { return &hold{got: make(chan int, 100)} }

func (h *hold) submit(xs []*Exchange, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.xs = append(h.xs, xs...)
	h.got <- len(h.xs)
}

// wait waits for n exchanges and returns them.
func (h *hold) wait(n int) []*Exchange {
	for <-h.got < n {
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Exchange(nil), h.xs...)
}
