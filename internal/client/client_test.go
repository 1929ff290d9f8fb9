package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestAddresses(t *testing.T) {
	for address, base := range map[string]string{
		"localhost:8081":            "http://localhost:8081",
		"http://127.0.0.1:8081/":    "http://127.0.0.1:8081",
		"https://example.org/under": "https://example.org/under",
		"http://[::1]:8081":         "http://[::1]:8081",
		"unix:/run/socket":          "http://localhost",
	} {
		if s, err := New(address, ""); err != nil || s.base != base {
			t.Errorf("%s: %v, %v, want %s", address, s, err, base)
		}
	}
	for _, address := range []string{"", "unix:", "ftp://host", "http://", "http://host?x=1", "http://host/#x", "http://a b", ":"} {
		if s, err := New(address, ""); err == nil {
			t.Errorf("%q is accepted as %s", address, s.base)
		}
	}
	if s, err := New("http://user:secret@host", ""); err != nil || strings.Contains(s.String(), "secret") {
		t.Errorf("messages show %v, %v", s, err)
	}
	if got := Path("db", "a/b", "lock", "x y+ö%..\xff"); got != "/db/a%2Fb/lock/x%20y%2B%C3%B6%25..%FF" {
		t.Errorf("a path is %s", got)
	}
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		status int
		text   bool // an answer like Cloud Dragon's
		reason Reason
	}{
		{400, true, BadRequest}, {401, true, Denied}, {403, true, Denied}, {404, true, NotFound}, {409, true, Conflict},
		{413, true, BadRequest}, {413, false, Foreign}, {421, true, Unavailable}, {421, false, Foreign}, {500, true, Unavailable}, {503, true, Unavailable}, {507, true, Unavailable},
		{400, false, Foreign}, {401, false, Denied}, {404, false, Foreign}, {409, false, Foreign}, {502, false, Unavailable}, {302, false, Foreign},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.text {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, map[bool]string{true: "what is wrong\n", false: "<html>\n<p>"}[c.text])
		}))
		s, err := New(server.URL, "token")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Call(t.Context(), "GET", "/", nil, "")
		if !Failed(err, c.reason) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "token\"") {
			t.Errorf("%d, one line %v: %v, want reason %d", c.status, c.text, err, c.reason)
		}
		server.Close()
	}
}

func TestUnixSocketAndToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Header.Get("Authorization"), r.RequestURI, r.Header.Get("Accept"))
	})}
	go server.Serve(l)
	defer server.Close()
	s, err := New("unix:"+path, "secret")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.Call(t.Context(), "GET", "/a%2Fb", url.Values{"n": {"1"}}, "application/json")
	if got := string(answer.Body); err != nil || got != "Bearer secret /a%2Fb?n=1 application/json" {
		t.Errorf("the server sees %q (%v)", got, err)
	}
}

// A call that is cancelled, even one that never gets an answer, leaves no goroutine behind.
func TestCancelledCallLeavesNoGoroutine(t *testing.T) {
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	s, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	lock := &Lock{Server: s, Account: "a", Name: "n", ID: "i", Dur: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := lock.Take(ctx)
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !Failed(err, Unavailable) {
		t.Errorf("a cancelled call: %v, want Unavailable", err)
	}
	server.Close()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		text := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(text, "net/http.(*Transport)") && !strings.Contains(text, "net/http.(*persistConn)") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines are left:\n%s", text)
		}
	}
}

func TestWaitLimitIsReadFromTheRefusal(t *testing.T) {
	line := "wait must be a duration such as 0.5, 500ms, 30s, 15m or 24h, at least 0 and at most 90s, not \"1h\""
	if d, ok := waitLimit(&Error{Reason: BadRequest, Line: line}); !ok || d != 90*time.Second {
		t.Errorf("%v, %v, want 1m30s", d, ok)
	}
	if d, ok := waitLimit(&Error{Reason: BadRequest, Line: strings.Replace(line, "wait", "dur", 1)}); ok {
		t.Errorf("a refused dur is read as a wait of %v", d)
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if seen[id] || len(id) > 128 {
			t.Fatalf("the id %q of %d bytes is given twice or too long", id, len(id))
		}
		seen[id] = true
	}
}

// TestLocalhostNeedsNoNameService dials on a machine that resolves no names.
func TestLocalhostNeedsNoNameService(t *testing.T) {
	for _, listens := range []string{"127.0.0.1:81", "[::1]:81"} {
		here, there := net.Pipe()
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		dial := findLocalhost(func(_ context.Context, _, address string) (net.Conn, error) {
			switch {
			case address == listens:
				return here, nil
			case strings.ContainsAny(address, "lh"): // a name
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no name service", Name: address}}
			}
			return nil, errors.New("connection refused")
		})
		if c, err := dial(t.Context(), "tcp", "localhost:81"); c != here || err != nil {
			t.Errorf("localhost, where %s listens: %v, %v", listens, c, err)
		}
		if _, err := dial(t.Context(), "tcp", "elsewhere:81"); !errors.As(err, new(*net.DNSError)) {
			t.Errorf("elsewhere: %v", err)
		}
		if _, err := dial(t.Context(), "tcp", "localhost:82"); err == nil || err.Error() != "connection refused" {
			t.Errorf("localhost, where nobody listens: %v", err)
		}
	}
}
