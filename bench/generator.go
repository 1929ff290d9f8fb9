package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A generator loads one server with one or more crowds of clients. One thread
// serves all connections and speaks both HTTP and RESP, so that every server
// shares the cores with the same load.
type generator struct {
	server unix.SockaddrInet4
	epoll  int
	crowds []*crowd
	wires  []*wire
	began  time.Time
	clock  func() time.Time
}

// crowd is a number of connections that send the same requests.
type crowd struct {
	work
	protocol // of the work, for the server under load
	conns    int
	id       func(i int) int // the id in request i
	n        int             // how many requests; 0: as many as fit in a time
	rate     float64         // requests a second, whether or not earlier ones are answered; 0: as fast as answers arrive
	depth    int             // calls sent at once on a connection; 0: 1
	fresh    bool            // each request uses a new connection

	idle []*wire // connections without a pending request
	sent int
	took []float64 // µs from when a request was due to its answer
	at   []float64 // µs from the start of the run to its answer
}

// wire is a connection.
type wire struct {
	*crowd
	fd      int // -1: not connected
	index   int // in generator.wires
	conn    int // in the crowd
	k       int // requests sent
	pending int // answers still to come
	due     time.Duration
	buf     []byte // for requests
	out, in []byte // bytes to be written, and bytes read that are not a whole answer yet
}

// newGenerator opens the connections.
func newGenerator(addr, speak string, crowds ...*crowd) (_ *generator, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	g := &generator{server: unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, epoll: -1, crowds: crowds, clock: time.Now}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	for _, c := range crowds {
		c.protocol = c.work[speak]
		c.depth = max(c.depth/c.calls, 1)
		c.idle, c.sent, c.took, c.at = nil, 0, nil, nil
		for i := range c.conns {
			w := &wire{crowd: c, fd: -1, index: len(g.wires), conn: i}
			g.wires, c.idle = append(g.wires, w), append(c.idle, w)
			if !c.fresh {
				if err := g.connect(w); err != nil {
					return nil, fmt.Errorf("connection %d of %d: %w", i+1, c.conns, err)
				}
			}
		}
	}
	return g, nil
}

func (g *generator) connect(w *wire) (err error) {
	if w.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(w.index)}
	return errors.Join(unix.SetsockoptInt(w.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Connect(w.fd, &g.server), // does not block for long: on loopback the kernel answers
		unix.SetNonblock(w.fd, true),
		unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, w.fd, &event))
}

func (g *generator) close() {
	for _, w := range g.wires {
		if w.fd >= 0 {
			unix.Close(w.fd) // nothing that matters is pending
		}
	}
	unix.Close(g.epoll)
}

// run sends requests for a time, or the number that each crowd has, and waits for all
// answers. It returns how long that took.
func (g *generator) run(ctx context.Context, d time.Duration) (time.Duration, error) {
	// Without this the kernel may wake the thread 50 µs late. Children inherit it, so it ends with the load.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("prctl: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default; never fails

	g.began = g.clock()
	events := make([]unix.EpollEvent, 512)
	for heard := g.now(); ; {
		timeout, busy := time.Second, false
		for _, c := range g.crowds {
			next, err := g.send(c, d)
			if err != nil {
				return 0, err
			}
			timeout = min(timeout, next)
			busy = busy || len(c.idle) < c.conns || next < time.Second
		}
		if !busy {
			return g.now(), nil
		}
		n, err := epollWait(g.epoll, events, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		for _, e := range events[:max(n, 0)] {
			if err := g.serve(g.wires[e.Fd], e.Events); err != nil {
				return 0, err
			}
		}
		switch now := g.now(); {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case n > 0:
			heard = now
		case now-heard > patience:
			return 0, fmt.Errorf("no answer for %v", patience)
		}
	}
}

func (g *generator) now() time.Duration { return g.clock().Sub(g.began) }

// send sends the requests that are due on idle connections, and returns the time until the
// next one is due: a second or more if there are no more.
func (g *generator) send(c *crowd, d time.Duration) (time.Duration, error) {
	for i, w := range c.idle {
		now := g.now()
		due := now
		if c.rate > 0 {
			due = time.Duration(float64(c.sent) / c.rate * float64(time.Second))
		}
		if c.n > 0 && c.sent >= c.n || c.n == 0 && due >= d {
			c.idle = slices.Delete(c.idle, 0, i)
			return time.Second, nil
		}
		if due > now {
			c.idle = slices.Delete(c.idle, 0, i)
			return min(due-now, time.Second-1), nil
		}
		if err := g.ask(w, due); err != nil {
			return 0, err
		}
	}
	c.idle = c.idle[:0]
	return time.Second, nil
}

// ask sends the connection's next requests.
func (g *generator) ask(w *wire, due time.Duration) error {
	if w.fd < 0 {
		if err := g.connect(w); err != nil {
			return err
		}
	}
	w.buf, w.due = w.buf[:0], due
	for w.pending = 0; w.pending < w.depth && (w.n == 0 || w.sent < w.n); w.pending++ {
		w.buf = w.appendRequest(w.buf)
	}
	w.out = w.buf
	return w.flush()
}

// serve writes and reads what it can on a connection.
func (g *generator) serve(w *wire, events uint32) error {
	if w.fd < 0 {
		return nil // closed since the event
	}
	if w.pending == 0 {
		if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			return errors.New("the server closed an idle connection")
		}
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	if events&^unix.EPOLLOUT == 0 {
		return nil
	}
	before := w.pending
	if err := w.receive(); err != nil {
		return err
	}
	now := g.now()
	for range before - w.pending {
		w.took, w.at = append(w.took, micros(now-w.due)), append(w.at, micros(now))
	}
	if w.pending > 0 {
		return nil
	}
	if w.fresh {
		if err := unix.Close(w.fd); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		w.fd = -1
	}
	w.idle = append(w.idle, w)
	return nil
}

// flush writes as much as the socket accepts.
func (w *wire) flush() error {
	for len(w.out) > 0 {
		n, err := unix.Write(w.fd, w.out)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		w.out = w.out[n:]
	}
	return nil
}

// receive reads what has arrived and counts the answers in it.
func (w *wire) receive() error {
	for {
		w.in = slices.Grow(w.in, 1024)
		n, err := unix.Read(w.fd, w.in[len(w.in):cap(w.in)])
		switch {
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		full := len(w.in)+n == cap(w.in)
		w.in = w.in[:len(w.in)+n]
		at := 0
		for at < len(w.in) {
			size, err := w.answer(w.in[at:])
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			at += size
			w.pending--
		}
		w.in = w.in[:copy(w.in, w.in[at:])]
		if w.pending < 0 {
			return errors.New("an answer without a request")
		}
		// Further bytes trigger another event.
		if !full && w.pending == 0 {
			return nil
		}
	}
}

// epollWait is epoll_pwait2, which counts in ns where epoll_wait counts in ms.
func epollWait(epoll int, events []unix.EpollEvent, timeout time.Duration) (int, error) {
	t := unix.NsecToTimespec(int64(timeout))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&t)), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return int(n), nil
}
