package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// generator loads one server for what wrk and redis-benchmark cannot do: at a
// constant rate, with large values, with ids in order. One thread serves all
// connections, as in wrk, so that it takes little of the cores that it shares
// with the server.
type generator struct {
	protocol
	epoll int
	wires []*wire
	idle  []*wire // have no request on their way; the first has been idle for the longest
	clock func() time.Time
	began time.Time
	p     pace
	sent  int
	took  []time.Duration // of each answer, from when its request was to be sent
}

// newGenerator opens the connections.
func newGenerator(addr string, conns int, p protocol) (_ *generator, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	g := &generator{protocol: p, epoll: -1, clock: time.Now}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	for i := range conns {
		w, err := connect(to)
		if err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, conns, err)
		}
		g.wires = append(g.wires, w)
		err = unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, w.fd, &unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(i),
		})
		if err != nil {
			return nil, fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return g, nil
}

func (g *generator) close() {
	for _, w := range g.wires {
		unix.Close(w.fd) // nothing is on its way that matters
	}
	unix.Close(g.epoll)
}

// run sends requests at that pace, and waits until all of them are answered.
// id names what the request with that number, 0, 1, 2 …, asks for.
func (g *generator) run(ctx context.Context, p pace, id func(i int) int) (load, error) {
	// The kernel may wake a thread 50 µs late, unless it is told not to. A program
	// that this thread starts would inherit that: it ends with the load.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return load{}, fmt.Errorf("prctl: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default; never fails

	g.began = g.clock()
	g.p, g.sent, g.took = p, 0, nil
	g.idle = append(g.idle[:0], g.wires...)
	events := make([]unix.EpollEvent, 256)
	for last := g.now(); ; {
		if err := g.send(id); err != nil {
			return load{}, err
		}
		if g.sent == len(g.took) && p.over(g.sent, g.now()) {
			break
		}
		n, err := g.wait(events)
		if err != nil {
			return load{}, err
		}
		for _, e := range events[:n] {
			if err := g.serve(g.wires[e.Fd], e.Events); err != nil {
				return load{}, err
			}
		}
		switch {
		case ctx.Err() != nil:
			return load{}, context.Cause(ctx)
		case n > 0:
			last = g.now()
		case g.now()-last > patience && g.sent > len(g.took):
			return load{}, fmt.Errorf("%d requests have no answer after %v", g.sent-len(g.took), patience)
		}
	}
	return load{answers: len(g.took), took: g.now(),
		p50: percentile(g.took, 50), p99: percentile(g.took, 99), p999: percentile(g.took, 99.9)}, nil
}

// now is the time since the load began.
func (g *generator) now() time.Duration { return g.clock().Sub(g.began) }

// send sends all that is due, as far as there are idle connections. What finds
// none is late, and its time counts from when it was due.
func (g *generator) send(id func(i int) int) error {
	for len(g.idle) > 0 {
		now := g.now()
		due := g.p.at(g.sent, now)
		if due > now || g.p.over(g.sent, now) {
			return nil
		}
		w := g.idle[0]
		g.idle = g.idle[1:]
		w.ask(g.request(w.buf[:0], id(g.sent)), g.body, due)
		g.sent++
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for what can be read or written, or until a request is due.
func (g *generator) wait(events []unix.EpollEvent) (int, error) {
	timeout := time.Second // to look at ctx
	if now := g.now(); g.p.rate > 0 && len(g.idle) > 0 && !g.p.over(g.sent, now) {
		timeout = min(timeout, max(0, g.p.at(g.sent, now)-now))
	}
	n, err := epollWait(g.epoll, events, timeout)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return n, err
}

// serve writes and reads what it can on a connection.
func (g *generator) serve(w *wire, events uint32) error {
	if !w.busy {
		if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			return errors.New("the server closed a connection")
		}
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	done, err := w.receive(g.answer)
	if err != nil || !done {
		return err
	}
	g.took = append(g.took, g.now()-w.due)
	g.idle = append(g.idle, w)
	return nil
}

// loadWith opens connections for one load.
func loadWith(ctx context.Context, addr string, conns int, proto protocol, p pace, id func(i int) int) (load, error) {
	g, err := newGenerator(addr, conns, proto)
	if err != nil {
		return load{}, err
	}
	defer g.close()
	return g.run(ctx, p, id)
}
