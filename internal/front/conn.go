package front

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// writeTime is the longest that a write may wait for its client to read. The deadline
// is renewed only when half of it is over, so a write may get half of it.
const writeTime = time.Minute

// Conn is a connection that saves system calls for deadlines. It sets the socket's read
// deadline only before a read that may wait, and only if the socket has none or a later
// one. If the socket's deadline is earlier than it should be and passes, the read sets the
// right one and tries again. A write always has a deadline.
type Conn struct {
	net.Conn
	socket  syscall.Conn // below TLS; nil: unknown
	plain   bool         // pass every call on to the socket
	log     *slog.Logger
	closed  sync.Once
	release func() // frees the place in the limit; nil: there is none
	early   []byte // input that a loop has read; owned by the reader

	mu             sync.Mutex    // guards what follows; not held during a read of the socket
	deadline       time.Time     // of reads; zero: none
	socketDeadline time.Time     // the read deadline that the socket has
	socketExpired  bool          // the socket's read deadline has passed
	reading        bool          // a read of the socket is under way
	skipWatch      bool          // the next read of a single byte returns at once
	written        time.Time     // the write deadline that the socket has; zero: unknown
	timed          bool          // the write deadline was set by SetWriteDeadline
	busy           bool          // a handler has a request, or its answer is being written
	age            time.Duration // how long a loop has had the first request
	head           []byte        // the first maxHead bytes since the last request
}

// Read yields to other goroutines first. Often the data has arrived by then, and the
// poller need not wait for it.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) > 1 {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skipWatch && len(p) == 1 {
		// A read of one byte is net/http's watch for a hang-up. No data and no error end it.
		c.skipWatch = false
		return 0, nil
	}
	if len(c.early) > 0 && len(p) > 0 {
		return c.readEarly(p), nil
	}
	for {
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
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
		c.keepHead(p[:n])
		if n > 0 || err == nil {
			return n, err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, c.handshakeFailed(err)
		}
		c.socketExpired = true
	}
}

// arm makes sure that the socket's read deadline is not later than c.deadline.
func (c *Conn) arm() error {
	if !c.plain && !c.socketExpired && (c.deadline.IsZero() || !c.socketDeadline.IsZero() && !c.deadline.Before(c.socketDeadline)) {
		return nil
	}
	c.socketDeadline, c.socketExpired = c.deadline, false
	return c.Conn.SetReadDeadline(c.deadline)
}

// SetReadDeadline sets the deadline of reads, also of one under way.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = c.aged(t)
	c.skipWatch = false // net/http sets a deadline before each watch, so the skipped one is over
	if c.reading {
		return c.arm()
	}
	return nil
}

// Write writes an answer of a handler as it is. What net/http writes by itself is replaced
// by refuse. If nobody has set a write deadline, Write sets one of writeTime, and renews it
// only when half of it is over.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.armWrite(); err != nil {
		return 0, err
	}
	if c.isAnswering() {
		return c.Conn.Write(p)
	}
	return c.refuse(p)
}

func (c *Conn) armWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.timed || c.written.Sub(now) > writeTime/2 {
		return nil
	}
	c.written = now.Add(writeTime)
	return c.Conn.SetWriteDeadline(c.written)
}

// SetWriteDeadline sets the deadline of writes, also of one under way. With a zero time
// Write sets it.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed = !t.IsZero(); !c.timed {
		return nil
	}
	c.written = time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite closes the connection for writing only.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close closes the connection and frees its place in the limit.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() {
		if c.release != nil {
			c.release()
		}
	})
	return err
}

// SkipWatch ends the watch for a hang-up that net/http starts for each request. Use it
// for calls that end soon whether the client is there or not.
func (c *Conn) SkipWatch() {
	if c.plain {
		return
	}
	c.mu.Lock()
	c.skipWatch = true
	c.mu.Unlock()
}

// begin and end enclose the time from a request to its answer.
func (c *Conn) begin() {
	c.mu.Lock()
	c.busy, c.age, c.head = true, 0, c.head[:0]
	c.mu.Unlock()
}

func (c *Conn) end() {
	c.mu.Lock()
	c.busy = false
	c.mu.Unlock()
}

// isAnswering reports whether a handler's answer is being written.
func (c *Conn) isAnswering() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// handshakeFailed returns the error to report to net/http for a failed read. After a
// failed TLS handshake it is io.EOF, because the client could not read an answer.
func (c *Conn) handshakeFailed(err error) error {
	t, ok := c.Conn.(*tls.Conn)
	if !ok || t.ConnectionState().HandshakeComplete {
		return err
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader[:]) {
		if _, err := plain.Conn.Write(answer(400, "this port speaks TLS: use https://")); err != nil {
			c.log.Debug("cannot answer HTTP on a port with TLS", "err", err)
		}
	} else if !errors.Is(err, io.EOF) { // as a scan of ports looks like
		c.log.Warn("a TLS handshake failed", "remote", c.RemoteAddr(), "err", err)
	}
	return io.EOF
}
