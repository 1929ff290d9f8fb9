package handlers

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/front"
)

// watched counts reads of one byte from the socket.
type watched struct {
	net.Listener
	mu    sync.Mutex
	reads int
}

type watchedConn struct {
	net.Conn
	by *watched
}

func (w *watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	return watchedConn{c, w}, err
}

func (c watchedConn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}

func (c watchedConn) Read(p []byte) (int, error) {
	if len(p) == 1 {
		c.by.mu.Lock()
		c.by.reads++
		c.by.mu.Unlock()
	}
	return c.Conn.Read(p)
}

// net/http watches for a hang-up with such reads. If it ever watches in another way, calls
// that wait remain safe, and other calls become slower.
func TestOnlyCallsThatMayWaitAreWatched(t *testing.T) {
	d, err := db.Open(db.Options{Dir: t.TempDir(), Segment: 4 << 20, Extent: 4096, CheckpointRoom: 4096})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Listener: l}
	s := &http.Server{Handler: New(Options{DB: d}), ConnContext: front.ConnContext, ConnState: front.ConnState, IdleTimeout: time.Hour, ReadTimeout: time.Hour}
	done := make(chan error)
	go func() { done <- s.Serve(front.NewListener(w, front.Options{Max: 10})) }()
	defer func() {
		if err := errors.Join(s.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	ask := func(request string) int {
		t.Helper()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, a.Body); err != nil || a.StatusCode >= 300 {
			t.Fatalf("%s: %s, %v", request, a.Status, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		n := w.reads
		w.reads = 0
		return n
	}
	const times = 50
	for _, request := range []string{
		"POST /db/1/sequence/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
		"POST /db/1/lock/a?id=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		n := 0
		for range times {
			n += ask(request)
		}
		// A watch that net/http starts may read before the handler says that it need not.
		if n > times/2 {
			t.Errorf("%.20s: %d of %d calls were watched", request, n, times)
		}
	}
}
