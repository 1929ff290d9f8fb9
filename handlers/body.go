package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// pace is how slow a client may be before its connection is cut.
type pace struct {
	idle time.Duration // from one piece to the next, and for the first of them
	rate int           // bytes a second, on average, in which a body comes and an answer is read, after a time of idle
}

var defaultPace = pace{idle: 30 * time.Second, rate: 16 << 10}

// largeBody is the size in bytes from which on an answer gets a deadline: a
// smaller one fits into the buffers of a connection.
const largeBody = 4 << 10

// A connection that has no deadlines is no reason to refuse a call, so the errors of
// setting them are ignored.

// read gives the client time for the next piece of the body.
func (p pace) read(c *call) {
	c.readUntil(time.Now().Add(p.idle))
}

// readOn is like read after n bytes have come since a time. Its deadline is earlier
// if they are too few for the rate.
func (p pace) readOn(c *call, since time.Time, n int) {
	next, least := time.Now().Add(p.idle), since.Add(p.timeFor(n))
	if least.Before(next) {
		next = least
	}
	c.readUntil(next)
}

// timeFor is how long n bytes may take.
func (p pace) timeFor(n int) time.Duration {
	return p.idle + time.Duration(n)*time.Second/time.Duration(p.rate)
}

// pieceSize is how much of an answer is written at a time, in bytes.
const pieceSize = 256 << 10

// write writes an answer. If the client reads too slowly, it stops with the piece
// that misses its deadline.
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

// patience removes the deadlines, those of the http.Server too. Once the body is
// read, net/http reads on to notice a hang-up, and a deadline would look like one.
func (c *call) patience() {
	c.readUntil(time.Time{})
	c.writeUntil(time.Time{})
}

// Setting a deadline fails on a closed connection, which the next read or write will
// find, and on the recorders of tests, which have none.
func (c *call) readUntil(t time.Time) {
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(t)
		return
	}
	if c.plain != nil {
		return // the loop has its own
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

// brief is for a call whose body is read and that ends soon in any case. It saves
// net/http the watch for a hang-up.
func (c *call) brief() {
	if c.conn != nil {
		c.conn.SkipWatch()
	}
}

// memoryPatience is how long a call waits for memory, in idle times of its pace. That
// is longer than slow bodies can hold it.
const memoryPatience = 2

// readBody reads the request's body to its end. One of more than limit bytes is
// 413, without being read where its length is told; one that ends early, or comes
// too slowly, is 400. setting names what sets the limit.
//
// What a Content-Length promises may never come. So a body gets memory for uncounted
// bytes first, and more only once it has filled them.
func (s *server) readBody(c *call, limit int64, setting string) ([]byte, error) {
	length := c.r.ContentLength
	if length > limit {
		return nil, tooLarge(fmt.Sprintf("%d bytes, ", length), limit, setting)
	}
	most := limit + 1 // one more than may come, to see that it does
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
			// All at once if the length is told; else in steps, which leave as much garbage at most.
			size, need := most, most
			if length < 0 {
				size, need = min(most, 2*int64(cap(b))), 2*most
			}
			if c.held == 0 {
				asked := time.Now()
				if err := s.memory.hold(c, need, memoryPatience*s.pace.idle); err != nil {
					return nil, err
				}
				began = began.Add(time.Since(asked)) // nothing was read meanwhile
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

// mayEndElsewhere reports whether a server before this one may see the end of a request
// in another place, so that what follows it on the connection may not be a request: where
// both a Content-Length and a Transfer-Encoding tell of the end, or HTTP/1.0 has a
// Transfer-Encoding. net/http keeps of both only what it heeds, so all requests that may
// have had the other are the last of their connections.
func mayEndElsewhere(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1)
}
