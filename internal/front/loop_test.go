package front

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakePlain answers /N at once, submits what is posted, and leaves /odd to net/http.
type fakePlain struct {
	start  func(x *Exchange) Verdict
	submit func(xs []*Exchange, lead bool)
	finish func(x *Exchange) Verdict
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

// loopRig is a server with a loop, whose net/http says so in each of its answers.
type loopRig struct {
	t    *testing.T
	l    *Listener
	addr string
}

func newLoopRig(t *testing.T, f *fakePlain, most int, set func(*http.Server)) *loopRig {
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
	o := LoopOptions{Plain: f, Loops: 1, HeaderTime: s.ReadHeaderTimeout, IdleTime: s.IdleTimeout, ReadTime: s.WriteTimeout}
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
		l.EndLoops(0)
		_ = s.Close() // the listener is closed
		<-served
	})
	return &loopRig{t, l, inner.Addr().String()}
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

// hold keeps what is submitted until it is released.
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

func TestAnswersComeInTheOrderOfTheRequests(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("POST", "/2")+ask("POST", "/3"))
	xs := h.wait(3)
	for _, i := range []int{2, 0, 1} {
		xs[i].Done()
	}
	b := bufio.NewReader(c)
	for i := range 3 {
		r.want(b, fmt.Sprintf("done /%d", i+1))
	}
}

// Nothing is answered before it is done, and a read sees the writes before it.
func TestReadWaitsForTheWritesBeforeIt(t *testing.T) {
	h := newHold()
	f := &fakePlain{submit: h.submit}
	var finished, early atomic.Int32
	f.finish = func(x *Exchange) Verdict {
		finished.Add(1)
		say(x, "done")
		return Answered
	}
	f.start = func(x *Exchange) Verdict {
		switch {
		case x.Request.Method == "POST":
			return Pending
		case x.Behind:
			return Later
		}
		if finished.Load() == 0 {
			early.Add(1)
		}
		say(x, "read")
		return Answered
	}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("GET", "/2"))
	x := h.wait(1)[0]
	// Another connection is not held up, and shows that the loop is past the read.
	other := r.dial()
	finished.Add(1)
	r.send(other, ask("GET", "/3"))
	r.want(bufio.NewReader(other), "read")
	finished.Add(-1)
	x.Done()
	b := bufio.NewReader(c)
	r.want(b, "done")
	r.want(b, "read")
	if early.Load() != 0 {
		t.Error("the read was started before the write was done")
	}
}

func TestStalledCommitHoldsUpNobodyElse(t *testing.T) {
	h := newHold()
	release := make(chan struct{})
	f := &fakePlain{}
	f.submit = func(xs []*Exchange, lead bool) {
		h.submit(xs, lead)
		<-release // as a disk that stalls
		for _, x := range xs {
			x.Done()
		}
	}
	r := newLoopRig(t, f, 100, nil)
	stuck := make([]*net.TCPConn, 3)
	for i := range stuck {
		stuck[i] = r.dial()
		r.send(stuck[i], ask("POST", fmt.Sprint("/", i)))
		h.wait(i + 1)
		c := r.dial()
		r.send(c, ask("GET", "/free"))
		r.want(bufio.NewReader(c), "/free")
	}
	close(release)
	for i, c := range stuck {
		r.want(bufio.NewReader(c), fmt.Sprint("done /", i))
	}
}

func TestStalledStartHoldsUpNobodyElse(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	f := &fakePlain{start: func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/slow" {
			close(began)
			<-release
		}
		say(x, x.Request.URL.Path)
		return Answered
	}}
	r := newLoopRig(t, f, 10, nil)
	slow := r.dial()
	r.send(slow, ask("GET", "/slow")+ask("GET", "/next"))
	<-began
	c := r.dial()
	r.send(c, ask("GET", "/free"))
	r.want(bufio.NewReader(c), "/free")
	close(release)
	b := bufio.NewReader(slow)
	r.want(b, "/slow")
	r.want(b, "/next")
}

// Where commits are slow the writer does them.
func TestSlowCommitsAreLeftToTheWriter(t *testing.T) {
	p := pace{}
	for range 100 {
		p.led(100 * time.Microsecond)
	}
	if !p.mayLead() {
		t.Error("fast commits are left to the writer")
	}
	p.late(lateAfter)
	led := 0
	for range 10 * probeEvery {
		if p.mayLead() {
			led++
		}
	}
	if led != 10 {
		t.Errorf("%d of %d commits were led, want 10", led, 10*probeEvery)
	}
	for range 100 {
		p.led(100 * time.Microsecond)
	}
	if !p.mayLead() {
		t.Error("the disk is fast again, and commits are left to the writer")
	}
}

func TestOddRequestIsHandedOverWithWhatCame(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	for _, odd := range []string{
		"POST /odd HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST /odd HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	} {
		h.mu.Lock()
		h.xs = nil
		h.mu.Unlock()
		c := r.dial()
		r.send(c, ask("POST", "/1")+odd[:len(odd)-3])
		x := h.wait(1)[0]
		r.send(c, odd[len(odd)-3:]+ask("GET", "/2"))
		x.Done()
		b := bufio.NewReader(c)
		r.want(b, "done /1")
		r.want(b, `net/http POST /odd "hello"`)
		r.want(b, `net/http GET /2 ""`)
	}
}

// A call that would have to wait is seen by net/http as if the loop had not been.
func TestKeptRequestCanStillBeHandedOver(t *testing.T) {
	f := &fakePlain{}
	f.start = func(x *Exchange) Verdict {
		x.Keep = true
		return Pending
	}
	f.finish = func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/waits" {
			return Odd
		}
		say(x, x.Request.URL.Path)
		return Answered
	}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("POST", "/2")+"POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+ask("POST", "/3"))
	b := bufio.NewReader(c)
	r.want(b, "/1")
	r.want(b, "/2")
	r.want(b, `net/http POST /waits "hi"`)
	r.want(b, `net/http POST /3 ""`)
}

func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("GET", "/2"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	h.wait(1)[0].Done()
	b := bufio.NewReader(c)
	r.want(b, "done /1")
	r.want(b, "/2")
	if _, err := b.ReadByte(); err != io.EOF {
		t.Errorf("after the answers: %v, want the end", err)
	}
}

func TestClientThatIsGoneCostsNothingButItsAnswer(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 1, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1"))
	x := h.wait(1)[0]
	if err := hangUps["reset"](c); err != nil {
		t.Fatal(err)
	}
	// Its place is free before its request is done.
	d := r.dial()
	r.send(d, ask("GET", "/2"))
	b := bufio.NewReader(d)
	r.want(b, "/2")
	x.Done()
	r.send(d, ask("GET", "/3"))
	r.want(b, "/3")
}

// The place of a connection in the limit goes with it to net/http.
func TestLimitHoldsAcrossTheHandOver(t *testing.T) {
	r := newLoopRig(t, &fakePlain{}, 2, nil)
	one, two := r.dial(), r.dial()
	b1, b2 := bufio.NewReader(one), bufio.NewReader(two)
	r.send(one, ask("GET", "/1"))
	r.want(b1, "/1")
	r.send(two, ask("GET", "/odd"))
	r.want(b2, `net/http GET /odd ""`)
	three := r.dial()
	r.send(three, ask("GET", "/3"))
	for range 3 {
		r.send(one, ask("GET", "/1"))
		r.want(b1, "/1")
		r.send(two, ask("GET", "/2"))
		r.want(b2, `net/http GET /2 ""`)
	}
	if n := len(r.l.open); n != 2 {
		t.Errorf("%d connections are open, want 2", n)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(bufio.NewReader(three), "/3")
}

func TestAnswerIsWhatNetHTTPWrites(t *testing.T) {
	type said struct {
		status int
		header http.Header
		body   string
	}
	answers := []said{
		{200, http.Header{"Content-Type": {"text/plain"}, "Etag": {"a", "b"}}, "hello"},
		{200, http.Header{}, "<html>"},
		{200, http.Header{"Content-Type": {"a/b"}, "Content-Length": {"3"}}, "abc"},
		{200, http.Header{"Content-Type": {"a/b"}}, strings.Repeat("a", bufferSize)},
		{200, http.Header{"Content-Type": {"a/b"}}, strings.Repeat("a", bufferSize+1)},
		{204, http.Header{"X": {" a\r\nb "}}, ""},
		{404, http.Header{"Content-Type": {"a/b"}}, "no\n"},
		{507, http.Header{}, ""},
	}
	var write func(w http.ResponseWriter)
	f := &fakePlain{start: func(x *Exchange) Verdict {
		write(x)
		return Answered
	}}
	r := newLoopRig(t, f, 10, func(s *http.Server) {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Begin(r)
			write(w)
		})
	})
	for i, a := range answers {
		write = func(w http.ResponseWriter) {
			for k, v := range a.header {
				w.Header()[k] = v
			}
			w.Header()["Date"] = nil
			if a.status != 200 {
				w.WriteHeader(a.status)
			}
			if a.body != "" {
				_, _ = w.Write([]byte(a.body))
			}
		}
		get := func(request string) []byte {
			c := r.dial()
			r.send(c, request)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		got, want := get(ask("GET", "/")), get("GET / HTTP/1.1\r\nHost: a\r\nCookie: a\r\n\r\n")
		if !bytes.Equal(withoutDate(got), withoutDate(want)) {
			t.Errorf("answer %d: got\n%.400q\nwant\n%.400q", i, got, want)
		}
	}
}

func withoutDate(b []byte) []byte {
	i := bytes.Index(b, []byte("Date: "))
	if i < 0 {
		return b
	}
	end := i + bytes.IndexByte(b[i:], '\n') + 1
	return append(append([]byte(nil), b[:i]...), b[end:]...)
}

// The times of net/http hold: for a first request, for the rest of one, and for the
// next one.
func TestSlowClientsAreCut(t *testing.T) {
	for name, sent := range map[string]string{
		"says nothing":              "",
		"stops in a head":           "GET /1 HTTP/1.1\r\nHost:",
		"stops in a head, answered": ask("GET", "/1") + "GET /2 HTTP/1.1\r\nHost:",
		"asks nothing more":         ask("GET", "/1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newLoopRig(t, &fakePlain{}, 10, func(s *http.Server) {
				s.ReadHeaderTimeout, s.IdleTimeout = time.Second, 2*time.Second
			})
			c := r.dial()
			r.send(c, sent)
			b := bufio.NewReader(c)
			if strings.HasPrefix(sent, ask("GET", "/1")) {
				r.want(b, "/1")
			}
			if got, err := b.ReadByte(); err != io.EOF {
				t.Errorf("got %q, %v, want the end", got, err)
			}
		})
	}
}

func TestClientThatReadsNothingIsCut(t *testing.T) {
	large := bytes.Repeat([]byte("a"), 16<<10)
	f := &fakePlain{start: func(x *Exchange) Verdict {
		_, _ = x.Write(large)
		return Answered
	}}
	r := newLoopRig(t, f, 1, func(s *http.Server) { s.WriteTimeout = time.Millisecond })
	c := r.dial()
	if err := c.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := io.WriteString(c, ask("GET", "/1")); err != nil {
				return // cut
			}
		}
	}()
	// There is room for another once it is cut.
	other := r.dial()
	if err := other.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r.send(other, ask("GET", "/2"))
	r.want(bufio.NewReader(other), string(large))
}

// A stop answers what is on its way and closes the rest at once.
func TestEndOfTheLoopsAnswersWhatIsOnItsWay(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	idle, busy := r.dial(), r.dial()
	bi, bb := bufio.NewReader(idle), bufio.NewReader(busy)
	r.send(idle, ask("GET", "/1"))
	r.want(bi, "/1")
	r.send(busy, ask("POST", "/2"))
	x := h.wait(1)[0]
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.l.EndLoops(time.Minute)
	}()
	if _, err := bi.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection: %v, want the end", err)
	}
	x.Done()
	r.want(bb, "done /2")
	if _, err := bb.ReadByte(); err != io.EOF {
		t.Errorf("after the answer: %v, want the end", err)
	}
	<-ended
	if _, err := r.l.Accept(); err != net.ErrClosed {
		t.Errorf("Accept: %v", err)
	}
}

func TestConnectionCloseInAnAnswerIsTheEnd(t *testing.T) {
	f := &fakePlain{start: func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/last" {
			x.Header()["Connection"] = []string{"close"}
		}
		say(x, x.Request.URL.Path)
		return Answered
	}}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	r.send(c, ask("GET", "/1")+ask("GET", "/last")+ask("GET", "/3"))
	b := bufio.NewReader(c)
	r.want(b, "/1")
	r.want(b, "/last")
	if got, err := b.ReadByte(); err != io.EOF {
		t.Errorf("got %q, %v, want the end", got, err)
	}
}

// Whoever keeps a string of a request must not keep more of what was received.
func TestNothingOfARequestIsInTheReadBuffer(t *testing.T) {
	var kept []string
	f := &fakePlain{start: func(x *Exchange) Verdict {
		r := x.Request
		kept = append(kept, r.URL.Path, r.URL.RawQuery, r.Host, r.Header.Get("Accept"))
		say(x, "")
		return Answered
	}}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	b := bufio.NewReader(c)
	for i := range 3 {
		r.send(c, fmt.Sprintf("GET /path%d?query%d HTTP/1.1\r\nHost: host%d\r\nAccept: accept%d\r\n\r\n", i, i, i, i))
		r.want(b, "")
	}
	for i, got := range kept {
		if want := fmt.Sprint([]string{"/path", "query", "host", "accept"}[i%4], i/4); got != want {
			t.Errorf("kept %q, want %q", got, want)
		}
	}
}
