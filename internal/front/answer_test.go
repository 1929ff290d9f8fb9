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
	var write atomic.Pointer[func(w http.ResponseWriter)]
	f := &fakePlain{start: func(x *Exchange) Verdict {
		(*write.Load())(x)
		return Answered
	}}
	r := newLoopRig(t, f, 10, func(s *http.Server) {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Begin(r)
			(*write.Load())(w)
		})
	})
	for i, a := range answers {
		say := func(w http.ResponseWriter) {
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
		write.Store(&say)
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

// The timeouts are those of net/http: for the first request, for the rest of a request, and
// for the next one.
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
				s.ReadHeaderTimeout, s.IdleTimeout = 3*time.Second, 4*time.Second
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
	// There is room for another connection once this one is closed.
	other := r.dial()
	if err := other.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r.send(other, ask("GET", "/2"))
	r.want(bufio.NewReader(other), string(large))
}

// A stop answers active requests and closes all other connections at once.
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
	if c, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("a connection is accepted after Close")
		_ = c.Close()
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

// A string that outlives its request must not point into the read buffer.
func TestNothingOfARequestIsInTheReadBuffer(t *testing.T) {
	var mu sync.Mutex // guards kept
	var kept []string
	f := &fakePlain{start: func(x *Exchange) Verdict {
		r := x.Request
		mu.Lock()
		defer mu.Unlock()
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
	mu.Lock()
	defer mu.Unlock()
	for i, got := range kept {
		if want := fmt.Sprint([]string{"/path", "query", "host", "accept"}[i%4], i/4); got != want {
			t.Errorf("kept %q, want %q", got, want)
		}
	}
}
