package handlers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/front"
)

// withLoops says whether the tests' servers have event loops in front of net/http. Many tests
// change the server between two requests. The race detector sees through package net that this
// is ordered, but not through the system calls of a loop.
var withLoops = os.Getenv("CLOUDDRAGON_LOOPS") != "off" && !raceEnabled

// rig is a server on a loopback port with its own database directory.
type rig struct {
	t      *testing.T
	db     *db.DB
	server *server
	http   *http.Server
	// network and addr are where clients connect to.
	network, addr string
	log           *syncBuffer
	seen          chan observed
}

type observed struct {
	api    API
	method string
	code   int
}

func newRig(t *testing.T, set func(*Options, *http.Server)) *rig {
	t.Helper()
	return newRigOn(t, db.Options{}, set)
}

func newRigOn(t *testing.T, on db.Options, set func(*Options, *http.Server)) *rig {
	t.Helper()
	on.Dir, on.Segment, on.Extent, on.CheckpointRoom = t.TempDir(), 4<<20, 4096, 4096
	d, err := db.Open(on)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: d, http: &http.Server{}, log: new(syncBuffer), seen: make(chan observed, 10_000)}
	o := Options{
		DB: d,
		Observe: func(api API, method string, code int, took time.Duration) {
			r.seen <- observed{api, method, code}
		},
		Log: slogTo(r.log),
	}
	if set != nil {
		set(&o, r.http)
	}
	h := New(o)
	r.server = h.(*server)
	r.http.Handler = h
	r.http.ConnContext, r.http.ConnState = front.ConnContext, front.ConnState
	r.http.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(r.log, nil), slog.LevelError)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.network, r.addr = "tcp", l.Addr().String()
	served := make(chan struct{})
	fl := front.NewListener(l, front.Options{Max: 1000})
	loops := withLoops // which may have changed by the time of the cleanup
	if loops {
		times := front.LoopOptions{Plain: Plain(h), HeaderTime: 10 * time.Second, IdleTime: 2 * time.Minute}
		if err := fl.StartLoops(times); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(served)
		if err := r.http.Serve(fl); err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if loops {
			if err := fl.Close(); err != nil {
				t.Error(err)
			}
			fl.EndLoops(0)
		}
		if err := r.http.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-served
		if err := d.Close(); err != nil && d.Err() == nil {
			t.Error(err)
		}
	})
	return r
}

// syncBuffer is a log that a test reads.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	length int64 // Content-Length, -1 if there is none
	body   string
}

func (a reply) String() string { return fmt.Sprintf("%d %q %v", a.status, a.body, a.header) }

// dial connects. The connection is closed at the end of the test.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial(r.network, r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// read reads one answer to a request with that method.
func (r *rig) read(b *bufio.Reader, method string) reply {
	r.t.Helper()
	resp, err := http.ReadResponse(b, &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("reading the answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("reading the body: %v", err)
	}
	return reply{resp.StatusCode, resp.Header, resp.ContentLength, string(body)}
}

// raw sends bytes on a new connection and reads one answer.
func (r *rig) raw(method, request string) reply {
	r.t.Helper()
	c := r.dial()
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	return r.read(bufio.NewReader(c), method)
}

// request is a request in bytes. Headers are "Name: value"; a body gets a Content-Length.
func request(method, target, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, target)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	chunked := slices.Contains(headers, "Transfer-Encoding: chunked")
	if (body != "" || method == "POST" || method == "PUT") && !chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.WriteString(body)
	return b.String()
}

// do sends a request with the target exactly as given.
func (r *rig) do(method, target string, headers ...string) reply {
	r.t.Helper()
	return r.raw(method, request(method, target, "", headers...))
}

// put sends a value.
func (r *rig) put(target, body string, headers ...string) reply {
	r.t.Helper()
	return r.raw("POST", request("POST", target, body, headers...))
}

// want sends a request and checks the status and, unless it is "*", the body.
func (r *rig) want(status int, body, method, target string, headers ...string) reply {
	r.t.Helper()
	a := r.do(method, target, headers...)
	if a.status != status || body != "*" && a.body != body {
		r.t.Errorf("%s %.100s: got %v, want %d %q", method, target, a, status, body)
	}
	return a
}

// refused sends a request that has to be refused with one line that contains part.
func (r *rig) refused(status int, part, method, target string, headers ...string) reply {
	r.t.Helper()
	a := r.do(method, target, headers...)
	r.checkRefusal(a, status, part, method+" "+target)
	return a
}

func (r *rig) checkRefusal(a reply, status int, part, what string) {
	r.t.Helper()
	if a.status != status || !strings.Contains(a.body, part) {
		r.t.Errorf("%.100s: got %v, want %d with %q in the line", what, a, status, part)
	}
	if strings.Count(a.body, "\n") != 1 || !strings.HasSuffix(a.body, "\n") || len(a.body) > 600 {
		r.t.Errorf("%.100s: %q is not one short line", what, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		r.t.Errorf("%.100s: Content-Type is %q", what, got)
	}
}

// observe returns the observation of the next request.
func (r *rig) observe() observed {
	r.t.Helper()
	select {
	case o := <-r.seen:
		return o
	case <-time.After(20 * time.Second):
		r.t.Fatal("nothing was observed")
		return observed{}
	}
}

func slogTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// swap replaces the function behind an endpoint for the duration of a test. No request may be
// in flight when the test begins or ends.
func swap(t *testing.T, api API, method string, serve func(*server, *call) error) {
	e := find(api, method)
	was := *e
	e.serve, e.quick = serve, false
	t.Cleanup(func() { *e = was })
}
