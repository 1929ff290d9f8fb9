package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// pace limits how slow a client may be before its connection is cut.
type pace struct {
	idle time.Duration // longest pause before and between the pieces of a body
	rate int           // least average of bytes a second for a body or an answer, with idle in addition
}

var defaultPace = pace{idle: 30 * time.Second, rate: 16 << 10}

// largeBody is the size in bytes from which an answer gets a deadline. A smaller one
// fits into the buffers of a connection.
const largeBody = 4 << 10

// Errors of setting a deadline are ignored: a connection without deadlines is no reason to
// refuse a call.

// read sets the deadline for the next piece of the body.
func (p pace) read(c *call) {
	c.readUntil(time.Now().Add(p.idle))
}

// readOn is read after n bytes that have been received since a time. The deadline is
// earlier if they are too few for the rate.
func (p pace) readOn(c *call, since time.Time, n int) {
	next, least := time.Now().Add(p.idle), since.Add(p.timeFor(n))
	if least.Before(next) {
		next = least
	}
	c.readUntil(next)
}

// timeFor returns how long n bytes may take.
func (p pace) timeFor(n int) time.Duration {
	return p.idle + time.Duration(n)*time.Second/time.Duration(p.rate)
}

// pieceSize is the number of bytes of an answer that are written at a time.
const pieceSize = 256 << 10

// write writes an answer. If the client reads too slowly, it stops at the piece that
// misses its deadline.
func (p pace) write(c *call, b []byte) error {
	if len(b) <= largeBody {
		_, err := c.w.Write(b)
		return err
	}
	began := time.Now()
	for at := 0; at < len(b); {
		end := min(at+pieceSize, len(b))
		c.writeUntil(began.Add(p.timeFor(end)))
		n, err := c.w.Write(b[at:end])
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}

// patience removes all deadlines, also those of the http.Server. After the body net/http
// reads on to notice a hang-up, and a deadline would look like one.
func (c *call) patience() {
	c.readUntil(time.Time{})
	c.writeUntil(time.Time{})
}

// Setting a deadline fails on a closed connection, which the next read or write reports,
// and on the recorders of tests, which have none.
func (c *call) readUntil(t time.Time) {
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(t)
		return
	}
	if c.plain != nil {
		return // the event loop has its own deadlines
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(t)
}

func (c *call) writeUntil(t time.Time) {
	if c.conn != nil {
		_ = c.conn.SetWriteDeadline(t)
		return
	}
	if c.plain != nil {
		return
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(t)
}

// brief marks a call whose body has been read and that ends soon in any case. It saves
// the watch for a hang-up.
func (c *call) brief() {
	if c.conn != nil {
		c.conn.SkipWatch()
	}
}

// memoryPatience is how long a call waits for memory, in multiples of pace.idle. That is
// longer than slow bodies can hold memory.
const memoryPatience = 2

// readBody reads the request's body to its end. A body of more than limit bytes is a 413;
// if it has a Content-Length, nothing of it is read. A body that ends early or comes too
// slowly is a 400. setting names the key of config.yml that sets the limit.
//
// A client may announce a long body and send nothing. So a body first gets memory for
// uncounted bytes, and more only when it has filled them.
func (s *server) readBody(c *call, limit int64, setting string) ([]byte, error) {
	length := c.r.ContentLength
	if length > limit {
		return nil, tooLarge(fmt.Sprintf("%d bytes, ", length), limit, setting)
	}
	most := limit + 1 // one more byte shows that the body is too large
	if length >= 0 {
		most = length + 1
	}
	if length == 0 {
		return nil, nil
	}
	began := time.Now()
	b := make([]byte, 0, min(most, uncounted))
	for {
		if len(b) == cap(b) {
			// All at once if the length is known. Otherwise in steps, whose garbage is at most as large.
			size, need := most, most
			if length < 0 {
				size, need = min(most, 2*int64(cap(b))), 2*most
			}
			if c.held == 0 {
				asked := time.Now()
				if err := s.memory.hold(c, need, memoryPatience*s.pace.idle); err != nil {
					return nil, err
				}
				began = began.Add(time.Since(asked)) // the wait for memory does not count
			}
			b = append(make([]byte, 0, size), b...)
		}
		s.pace.readOn(c, began, len(b))
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, tooLarge("", limit, setting)
		case err == io.EOF:
			c.whole = true
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, badRequest("the body stopped after %d bytes, or is too slow: a part of it every %s is wanted, and %d bytes a second on average: nothing was done",
				len(b), s.pace.idle, s.pace.rate)
		case err != nil:
			return nil, badRequest("the body ended too early, after %d bytes: nothing was done", len(b))
		}
	}
}

func tooLarge(size string, limit int64, setting string) error {
	return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is too large: %sthe limit is %d bytes (%s)", size, limit, setting)}
}

// mayEndElsewhere reports whether a proxy in front of this server may find the end of the
// request in another place, so that the bytes after it may be a smuggled request. That is
// so if a request has both Content-Length and Transfer-Encoding, or if HTTP/1.0 has a
// Transfer-Encoding. net/http hides the header that it ignores, so every request that may
// have had both is the last one on its connection.
func mayEndElsewhere(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1)
}
