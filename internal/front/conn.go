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

// writeTime is how long a write may wait for its client to read, at most; half of
// it at least.
const writeTime = time.Minute

// Conn is a connection that tells the socket of a deadline only where a read
// may have to wait for it and the socket has none or a later one: an earlier
// one is put right when it is met. A write always has a deadline.
type Conn struct {
	net.Conn
	socket  syscall.Conn // below TLS; nil: not known
	plain   bool         // save nothing
	log     *slog.Logger
	closed  sync.Once
	release func() // lets the listener accept another; nil: nothing to do
	early   []byte // what a loop has read; of the reader

	mu             sync.Mutex    // not held while the socket is asked
	deadline       time.Time     // when reads are over; zero: never
	socketDeadline time.Time     // what the socket has for it
	socketExpired  bool          // the socket's is over
	reading        bool          // the socket is asked
	skipWatch      bool          // the next read of a single byte is not worth it
	written        time.Time     // what the socket has for writes; zero: unknown
	timed          bool          // it was asked for
	busy           bool          // a request is with its handler, or its answer on its way
	age            time.Duration // for how long the first request was on its way in a loop
	head           []byte        // what came since the last one, up to maxHead bytes
}

// Read lets whoever is ready run first: what is to be read has often come by
// then, and the poller need not wait for it.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) > 1 {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skipWatch && len(p) == 1 {
		// So net/http's watch reads. It ends; any other reader would try again.
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

// arm sees to it that the socket's deadline is not after the one of reads.
func (c *Conn) arm() error {
	if !c.plain && !c.socketExpired && (c.deadline.IsZero() || !c.socketDeadline.IsZero() && !c.deadline.Before(c.socketDeadline)) {
		return nil
	}
	c.socketDeadline, c.socketExpired = c.deadline, false
	return c.Conn.SetReadDeadline(c.deadline)
}

// SetReadDeadline sets when reads are over, also one that waits.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = c.aged(t)
	c.skipWatch = false // that read is over: net/http sets a deadline before each of its watches
	if c.reading {
		return c.arm()
	}
	return nil
}

// Write writes as net.Conn says, but for what net/http answers by itself. Without a deadline that was asked for it has
// one of its own, which is told again only once half of it is over.
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

// SetWriteDeadline sets when writes are over, also one that waits. Zero leaves
// that to Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed = !t.IsZero(); !c.timed {
		return nil
	}
	c.written = time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite tells the client that nothing more comes, while it may still send.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close closes the connection and lets the listener accept another.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() {
		if c.release != nil {
			c.release()
		}
	})
	return err
}

// SkipWatch ends the watch for a hang-up that net/http is about to start, or has
// started just now. It is for a call that ends soon, whether its client is there
// or not.
func (c *Conn) SkipWatch() {
	if c.plain {
		return
	}
	c.mu.Lock()
	c.skipWatch = true
	c.mu.Unlock()
}

// begin and end are around what happens between a request and its answer.
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

// isAnswering says whether what is written is the answer of a handler.
func (c *Conn) isAnswering() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// handshakeFailed returns what net/http is told of an error of a read. A failed
// TLS handshake is the end: nobody could read an answer.
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
