package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"clouddragon/internal/front"
)

// upload sends a request with a whole body of n bytes and only then reads the answer, as many
// clients do. It also returns whether it could send all of it.
func (r *rig) upload(head string, n int) (reply, error) {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, head); err != nil {
		r.t.Fatal(err)
	}
	_, err := io.CopyN(c, zeros{}, int64(n))
	return r.read(bufio.NewReader(c), "PUT"), err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Through a proxy a reset is a 502, which curl repeats.
func TestRefusedUploadIsReadToItsEnd(t *testing.T) {
	r := newRig(t, func(o *Options, h *http.Server) {
		guarded(o, h)
		o.Limits.Value = 1 << 20
	})
	const size = 20 << 20
	for _, c := range []struct {
		status                     int
		part, target, auth, method string
	}{
		{401, "token", "/db/shop/kv/a", bear("no"), "PUT"},
		{403, "reading only", "/db/shop/kv/a", bear("reader"), "PUT"},
		{403, "only pages of this server", "/db/shop/kv/a", bear("all") + "\r\nSec-Fetch-Site: cross-site", "POST"},
		{413, "the limit is 1048576 bytes", "/db/shop/kv/a", bear("all"), "PUT"},
		{400, "unknown parameter", "/db/shop/kv/a?vre=1", bear("all"), "PUT"},
		{404, "no such route", "/nothing", bear("all"), "PUT"},
		{405, "is not allowed on sequence", "/db/shop/sequence/a", bear("all"), "PUT"},
		{413, "the limit is 1048576 bytes", "/db/shop/sequence/a", bear("all"), "POST"},
	} {
		for _, length := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n", size), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)} {
			head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s", c.method, c.target, c.auth, length)
			a, err := r.upload(head, size)
			r.checkRefusal(a, c.status, c.part, head)
			if err != nil {
				t.Errorf("%s: the client cannot send its body: %v", head, err)
			}
		}
	}
}

// The answer comes before the body is sent, and then the end of the connection.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	r := newRig(t, guarded)
	for _, rest := range []string{
		"Content-Length: 100000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
		"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n",
	} {
		c, b := r.start("PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\n" + rest)
		r.checkRefusal(r.read(b, "PUT"), 401, "token", rest)
		if _, err := b.ReadByte(); err != io.EOF {
			t.Errorf("%q: behind the answer comes %v", rest, err)
		}
		// It may still send, and is not reset.
		for range 100 {
			if _, err := io.CopyN(c, zeros{}, 100_000); err != nil {
				t.Fatalf("%q: %v", rest, err)
			}
		}
	}
}

func TestConnectionIsUsedAgainBehindAShortRefusedBody(t *testing.T) {
	r := newRig(t, guarded)
	c, b := r.start(request("PUT", "/db/1/kv/a", strings.Repeat("x", smallBody)))
	r.checkRefusal(r.read(b, "PUT"), 401, "token", "a short body")
	if _, err := io.WriteString(c, request("GET", "/healthz", "")); err != nil {
		t.Fatal(err)
	}
	if a := r.read(b, "GET"); a.status != 200 {
		t.Errorf("the next request: %v", a)
	}
}

// A body that was read completely need not be waited for.
func TestConnectionIsUsedAgainBehindARefusedValue(t *testing.T) {
	r := newRig(t, nil)
	c, b := r.start(request("PUT", "/db/1/kv/a?ver=7", strings.Repeat("x", 1<<20)))
	r.checkRefusal(r.read(b, "PUT"), 409, "does not exist", "a lost race")
	if _, err := io.WriteString(c, request("GET", "/healthz", "")); err != nil {
		t.Fatal(err)
	}
	if a := r.read(b, "GET"); a.status != 200 {
		t.Errorf("the next request: %v", a)
	}
}

// A waiter that has already sent its next request and hangs up must not get the lock, although
// net/http does not notice the hang-up.
func TestWaiterThatPipelinesAndHangsUpLeavesTheQueue(t *testing.T) {
	r := newRig(t, nil)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: r.server, ConnContext: front.ConnContext, ConnState: front.ConnState}
	done := make(chan error)
	go func() { done <- s.Serve(front.NewListener(l, front.Options{Max: 10})) }()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	const lock = "/db/1/lock/a"
	r.granted(r.do("POST", lock+"?dur=1h"))
	tcp := r.addr
	for _, hangUp := range map[string]func(c net.Conn) error{
		"close": net.Conn.Close,
		"half":  func(c net.Conn) error { return c.(interface{ CloseWrite() error }).CloseWrite() },
		"reset": func(c net.Conn) error {
			if tcp, ok := c.(*net.TCPConn); ok {
				if err := tcp.SetLinger(0); err != nil {
					return err
				}
			}
			return c.Close()
		},
	} {
		for _, at := range [][2]string{{"tcp", tcp}, {"unix", l.Addr().String()}} {
			r.network, r.addr = at[0], at[1]
			c, _ := r.start(request("POST", lock+"?wait=5m", ""))
			r.queued(lock, 1)
			// Sent now, the next request ends net/http's watch for a hang-up.
			if _, err := io.WriteString(c, request("GET", "/healthz", "")); err != nil {
				t.Fatal(err)
			}
			if err := hangUp(c); err != nil {
				t.Fatal(err)
			}
			r.queued(lock, 0)
		}
	}
}
