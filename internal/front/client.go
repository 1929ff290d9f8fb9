package front

import (
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// client is a connection that a loop serves. Only the loop's owner uses it.
type client struct {
	fd     int
	serial uint32

	runnable bool // in loop.runnable
	readable bool // there may be something to read
	ending   bool // the client has closed its side; the EOF has not been read yet
	eof      bool // the EOF has been read
	dead     bool // closed or handed over
	leave    leave
	over     bool // the loop writes no more answers

	in       []byte    // received and not consumed yet
	borrowed bool      // in is part of the loop's scratch buffer
	out      []byte    // answers that are not yet written
	late     time.Time // deadline for the client to read some of out
	since    time.Time // when it was accepted, or started to wait for a request or the rest of one
	posted   bool      // the last request was a POST
	served   bool      // a request was answered

	first, last *Exchange // a list, in the order of the requests
	count       int       // length of the list
	bytes       int       // memory of the exchanges in the list
	pending     int       // how many exchanges are Pending
	unqueued    int       // how many exchanges are in a Submit that took long and has not returned
	starting    bool      // Start runs for the last exchange
	kept        *Exchange // the last exchange, whose request is still in the buffer in; nil: none
	later       bool      // the next request has to wait until nothing is pending
}

// leave says what happens to a connection once all its exchanges are answered.
type leave uint8

const (
	stay     leave = iota
	handOver       // net/http takes over
	closing        // the last answer is written, or the client has closed its side
	linger         // closed for writing; input is discarded
)

// Limits on the requests of one connection that are started at a time.
const (
	maxStarted      = 64
	maxStartedBytes = 32 << 10
)

// leastRequest is how many bytes net/http waits for after an answer before it
// parses them as the next request.
const leastRequest = 4

// asks reports whether the buffer holds the beginning of a request.
func (s *client) asks() bool {
	return len(s.in) >= leastRequest || len(s.in) > 0 && !s.served && s.count == 0
}

// event notes what epoll reports about the socket.
func (s *client) event(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.ending = true
	}
}

// process does all work that is ready for s. It returns false if the loop has another
// owner now.
func (p *loop) process(s *client) bool {
	p.leaveIfGone(s)
	for !s.dead {
		p.collect(s)
		if p.flush(s); s.dead {
			break
		}
		if !p.startMore(s) {
			return false
		}
		if s.first == nil || !s.first.ready {
			break
		}
	}
	if !s.dead {
		p.settle(s)
	}
	return true
}

// collect encodes the answers that are next in order. It stops at the first exchange
// that is not answered yet.
func (p *loop) collect(s *client) {
	for s.first != nil && s.first.ready {
		x := s.first
		if s.first = x.next; s.first == nil {
			s.last = nil
		}
		s.count--
		s.bytes -= x.cost
		kept := s.kept == x
		if kept {
			s.kept = nil
		}
		switch {
		case s.over:
		case x.verdict == Aborted:
			s.leave, s.over = closing, true
		case x.verdict == Odd:
			s.leave, s.over = handOver, true
		default:
			if s.out == nil {
				s.out = p.out[:0]
			}
			s.out = x.appendTo(s.out, p.httpDate(), &p.names)
			s.served = true
			if kept {
				s.use(x)
			}
			if x.closes() {
				s.leave, s.over = closing, true
			}
		}
		p.free(x)
	}
	if s.pending == 0 {
		s.later = false
	}
}

// flush writes as much of the answers as the socket takes.
func (p *loop) flush(s *client) {
	if len(s.out) == 0 {
		return
	}
	mine := &s.out[0] == &p.out[:1][0]
	for len(s.out) > 0 {
		n, err := unix.Write(s.fd, s.out)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			p.close(s)
			return
		}
		s.out = s.out[n:]
		s.late = time.Time{}
	}
	s.since = p.now
	if len(s.out) == 0 {
		s.out, s.late = nil, time.Time{}
		return
	}
	if mine {
		s.out = append([]byte(nil), s.out...)
	}
	if s.late.IsZero() {
		s.late = p.now.Add(p.l.loop.ReadTime + time.Duration(len(s.out))*time.Second/readRate)
	}
}

// startMore starts the requests that have arrived.
func (p *loop) startMore(s *client) bool {
	if s.leave == linger {
		p.discard(s)
		return true
	}
	for s.leave == stay && !s.starting && s.kept == nil && len(s.out) == 0 &&
		s.count < maxStarted && s.bytes < maxStartedBytes && (!s.later || s.pending == 0) && !s.said() {
		var m message
		switch v := incomplete; {
		case s.asks():
			v = parse(s.in, &m)
			if v == odd {
				s.leave = handOver
				return true
			}
			if v == plain {
				break
			}
			fallthrough
		default:
			if s.readable && !s.eof {
				p.read(s)
				if s.dead {
					return true
				}
				continue
			}
			if s.eof {
				s.leave = closing
				if s.asks() {
					s.leave = handOver // net/http answers that the request is incomplete
				}
			}
			return true
		}
		x := p.exchange(s, &m)
		s.starting = true
		if !p.guard(func() { x.verdict = p.plain.Start(x) }) {
			p.tell(func() { p.started = append(p.started, x) })
			return false
		}
		p.act(x)
	}
	return true
}

// said reports whether the last started request ends the connection, with its answer or without one.
func (s *client) said() bool {
	x := s.last
	return x != nil && x.ready && (x.verdict == Aborted || x.closes())
}

// exchange adds an exchange for the request m.
func (p *loop) exchange(s *client, m *message) *Exchange {
	var x *Exchange
	if n := len(p.spare); n > 0 {
		x, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		x = newExchange(p.context)
	}
	x.reset(m, &p.known)
	x.loop, x.conn, x.Behind = p, s, s.pending > 0
	x.Gone = s.ending || s.eof
	if s.last == nil {
		s.first = x
	} else {
		s.last.next = x
	}
	s.last = x
	s.count++
	p.open++
	s.bytes += x.cost
	return x
}

// free keeps an exchange for reuse.
func (p *loop) free(x *Exchange) {
	x.conn, x.next = nil, nil
	if len(p.spare) < maxSpare && cap(x.body) <= 4<<10 {
		p.spare = append(p.spare, x)
	}
}

// act acts on the verdict of Start or Resume.
func (p *loop) act(x *Exchange) {
	s := x.conn
	s.starting = false
	if s.kept == x {
		s.kept = nil
	}
	switch x.verdict {
	case Waiting:
		p.waits(x)
		p.leaveIfGone(s)
		return
	case Pending:
		x.pending = true
		s.pending++
		p.batch = append(p.batch, x)
		if x.Keep {
			s.kept = x
			return
		}
	case Later, Odd:
		if x.verdict == Later {
			s.later = true
		} else {
			s.leave = handOver
		}
		p.takeBack(s, x)
		return
	default:
		x.ready = true
		p.open--
		x.cost += len(x.body)
		s.bytes += len(x.body)
	}
	s.use(x)
}

// takeBack removes the last exchange, which Start left alone.
func (p *loop) takeBack(s *client, x *Exchange) {
	var before *Exchange
	for y := s.first; y != x; y = y.next {
		before = y
	}
	if s.last = before; before == nil {
		s.first = nil
	} else {
		before.next = nil
	}
	s.count--
	p.open--
	s.bytes -= x.cost
	p.free(x)
}

// use removes the request of x from the input buffer.
func (s *client) use(x *Exchange) {
	if s.dead {
		return
	}
	s.posted = x.Request.Method == http.MethodPost
	if s.in = s.in[x.size:]; len(s.in) == 0 {
		s.in, s.borrowed = nil, false
	}
}

// settle closes or hands over s if it is due, and copies input out of the loop's buffer.
func (p *loop) settle(s *client) {
	if s.count == 0 && len(s.out) == 0 {
		switch s.leave {
		case handOver:
			p.handOver(s)
			return
		case closing:
			p.hangUp(s)
			return
		case stay:
			if p.stopSeen && !s.asks() {
				p.close(s)
				return
			}
		}
	}
	if s.borrowed {
		s.in = append([]byte(nil), s.in...)
		s.borrowed = false
	}
}

// read reads once from the socket.
func (p *loop) read(s *client) {
	if len(s.in) == 0 {
		s.in, s.borrowed = p.scratch[:0], true
	}
	if len(s.in) == cap(s.in) {
		s.in = append(make([]byte, 0, max(4<<10, 2*cap(s.in))), s.in...)
		s.borrowed = false
	}
	for {
		room := s.in[len(s.in):cap(s.in)]
		n, err := unix.Read(s.fd, room)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			s.readable = false
		case err != nil:
			p.close(s)
			return
		case n == 0:
			s.eof, s.readable = true, false
		default:
			if len(s.in) == 0 && s.served {
				s.since = p.now
			}
			s.in = s.in[:len(s.in)+n]
			// After a read that leaves room, epoll reports new input.
			s.readable = n == len(room) || s.ending
		}
		if len(s.in) == 0 {
			s.in, s.borrowed = nil, false
		}
		return
	}
}
