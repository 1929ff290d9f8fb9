package handlers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Listener returns l with connections that cost less under net/http, which sets
// up to eight deadlines for each request, and watches for a hang-up meanwhile.
// With ConnContext the handlers know the connection of a request.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// writeTime is how long a write may wait for its client to read, at most; half of
// it at least.
const writeTime = time.Minute

// conn is a connection that tells the socket of a deadline only where a read
// may have to wait for it and the socket has none or a later one: an earlier
// one is put right when it is met. A write always has a deadline.
type conn struct {
	net.Conn

	mu      sync.Mutex // not held while the socket is asked
	until   time.Time  // when reads are over; zero: never
	armed   time.Time  // what the socket has for it
	met     bool       // the socket's is over
	reading bool       // the socket is asked
	spared  bool       // the next read of a single byte is not worth it
	written time.Time  // what the socket has for writes; zero: unknown
	timed   bool       // it was asked for
}

// connKey is where ConnContext keeps the connection.
type connKey struct{}

// ConnContext is for http.Server.ConnContext, with connections from Listener.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // of TLS
	}
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// connOf returns the connection of a request, nil if it is not known.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// Read lets whoever is ready run first: what is to be read has often come by
// then, and the poller need not wait for it.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) > 1 {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spared && len(p) == 1 {
		// So net/http's watch reads. It ends; any other reader would try again.
		c.spared = false
		return 0, nil
	}
	for {
		if !c.until.IsZero() && !time.Now().Before(c.until) {
			return 0, os.ErrDeadlineExceeded
		}
		if err := c.arm(); err != nil {
			return 0, err
		}
		c.reading = true
		c.mu.Unlock()
		n, err = c.Conn.Read(p)
		c.mu.Lock()
		c.reading = false
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.met = true
	}
}

// arm sees to it that the socket's deadline is not after the one of reads.
func (c *conn) arm() error {
	if !c.met && (c.until.IsZero() || !c.armed.IsZero() && !c.until.Before(c.armed)) {
		return nil
	}
	c.armed, c.met = c.until, false
	return c.Conn.SetReadDeadline(c.until)
}

// SetReadDeadline sets when reads are over, also one that waits.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	c.spared = false // that read is over: net/http sets a deadline before each of its watches
	if c.reading {
		return c.arm()
	}
	return nil
}

// Write writes as net.Conn says. Without a deadline that was asked for it has
// one of its own, which is told again only once half of it is over.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.armWrite(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *conn) armWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.timed || c.written.Sub(now) > writeTime/2 {
		return nil
	}
	c.written = now.Add(writeTime)
	return c.Conn.SetWriteDeadline(c.written)
}

// SetWriteDeadline sets when writes are over, also one that waits. Zero leaves
// that to Write.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed = !t.IsZero(); !c.timed {
		return nil
	}
	c.written = time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite lets net/http end an answer to a client that still sends, without a reset.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SyscallConn lets one look at the socket.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// spare ends the watch for a hang-up that net/http is about to start, or has
// started just now.
func (c *conn) spare() {
	c.mu.Lock()
	c.spared = true
	c.mu.Unlock()
}
