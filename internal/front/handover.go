package front

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handed are connections on their way from the loops to net/http.
type handed struct {
	mu    sync.Mutex // guards what follows
	conns []net.Conn
	loops int // loops that have not ended

	some chan struct{} // holds a token if there may be a connection; closed when all loops have ended
}

func newHanded(loops int) *handed { return &handed{loops: loops, some: make(chan struct{}, 1)} }

// put adds a connection. It never waits.
func (h *handed) put(c net.Conn) {
	h.mu.Lock()
	h.conns = append(h.conns, c)
	h.mu.Unlock()
	select {
	case h.some <- struct{}{}:
	default:
	}
}

// take waits for a connection. The error is net.ErrClosed once all loops have ended.
func (h *handed) take() (net.Conn, error) {
	for {
		h.mu.Lock()
		if len(h.conns) > 0 {
			c := h.conns[0]
			h.conns[0] = nil
			h.conns = h.conns[1:]
			h.mu.Unlock()
			return c, nil
		}
		over := h.loops == 0
		h.mu.Unlock()
		if over {
			return nil, net.ErrClosed
		}
		<-h.some
	}
}

// loopEnded is called by each loop at its end.
func (h *handed) loopEnded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loops--; h.loops == 0 {
		close(h.some)
	}
}

// handOver gives a connection to net/http, with its unused input and its place in the
// limit.
func (p *loop) handOver(s *client) {
	c, err := p.netConn(s)
	if err != nil {
		p.log.Warn("cannot serve a connection", "err", err)
		p.close(s)
		return
	}
	in := s.in
	if s.posted {
		// net/http skips line breaks after the body of a POST.
		for i := 0; i < leastRequest && len(in) > 0 && (in[0] == '\r' || in[0] == '\n'); i++ {
			in = in[1:]
		}
	}
	early, age := append([]byte(nil), in...), p.now.Sub(s.since)
	if len(early) == 0 {
		age = 0
	}
	p.remove(s)
	p.l.handed.put(&Conn{
		Conn: c, socket: c.(syscall.Conn), release: p.l.release, plain: p.l.o.Plain, log: p.l.o.Log,
		early: early, age: age,
	})
}

// netConn makes a net.Conn of a socket and removes its descriptor from the loop.
func (p *loop) netConn(s *client) (net.Conn, error) {
	// os.NewFile takes the descriptor over, and net.FileConn duplicates it.
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	f := os.NewFile(uintptr(fd), "")
	c, err := net.FileConn(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	// epoll keeps watching a socket until its last descriptor is closed, so remove it.
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, s.fd, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll_ctl: %w", err), c.Close())
	}
	if err := unix.Close(s.fd); err != nil {
		p.log.Error("closing a duplicated descriptor", "err", err)
	}
	return c, nil
}

// readEarly reads from the input that the loop has read.
func (c *Conn) readEarly(p []byte) int {
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil
	}
	c.keepHead(p[:n])
	return n
}

// aged moves a deadline forward by the time that the loop has had the first request.
func (c *Conn) aged(t time.Time) time.Time {
	if t.IsZero() || c.age == 0 {
		return t
	}
	return t.Add(-c.age)
}
