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
	idle time.Duration // from one piece of a request's body to the next
	rate int           // bytes a second in which an answer is read, after a time of idle
}

var defaultPace = pace{idle: 30 * time.Second, rate: 16 << 10}

// largeBody is the size in bytes from which on an answer gets a deadline: a
// smaller one fits into the buffers of a connection.
const largeBody = 4 << 10

// Deadlines that the connection does not know are no reason to refuse a call,
// so the errors of those below are left alone.

// read gives the client time for the next piece of the body.
func (p pace) read(c *call) {
	c.readUntil(time.Now().Add(p.idle))
}

// write gives the client time to read an answer of n bytes.
func (p pace) write(c *call, n int) {
	d := p.idle + time.Duration(n)*time.Second/time.Duration(p.rate)
	c.writeUntil(time.Now().Add(d))
}

// patience takes the deadlines away, those of the http.Server too: once the body
// is read, net/http reads on to notice a hang-up, and a deadline would look like one.
func (c *call) patience() {
	c.readUntil(time.Time{})
	c.writeUntil(time.Time{})
}

// A deadline is refused where the connection is closed, of which the next read or
// write tells, and by the recorders of tests, which have none.
func (c *call) readUntil(t time.Time) {
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(t)
		return
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(t)
}

func (c *call) writeUntil(t time.Time) {
	if c.conn != nil {
		_ = c.conn.SetWriteDeadline(t)
		return
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(t)
}

// brief is for a call whose body is read, and which ends soon whether its client
// is there or not: nobody need watch for a hang-up.
func (c *call) brief() {
	if c.conn != nil {
		c.conn.spare()
	}
}

// firstRead is how much memory a body gets before any of it is there: what a
// Content-Length promises may never come.
const firstRead = 16 << 10

// readBody reads the request's body to its end. One of more than limit bytes is
// 413, without being read where its length is told; one that ends early is 400.
// setting names what sets the limit.
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
	b := make([]byte, 0, min(most, firstRead))
	for {
		if len(b) == cap(b) {
			size := int(min(most, 2*int64(cap(b))))
			if size >= memoryUnit && c.held == 0 {
				if err := s.memory.hold(c, int(most), s.pace.idle); err != nil {
					return nil, err
				}
			}
			b = append(make([]byte, 0, size), b...)
		}
		s.pace.read(c)
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, tooLarge("", limit, setting)
		case err == io.EOF:
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, badRequest("the body stopped after %d bytes and did not go on for %s: nothing was done", len(b), s.pace.idle)
		case err != nil:
			return nil, badRequest("the body ended too early, after %d bytes: nothing was done", len(b))
		}
	}
}

func tooLarge(size string, limit int64, setting string) error {
	return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is too large: %sthe limit is %d bytes (%s)", size, limit, setting)}
}
