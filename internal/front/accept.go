package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LoopOptions say how plain requests are answered in front of net/http.
type LoopOptions struct {
	// Plain answers the requests. If it is nil, net/http serves everything.
	Plain Plain
	// Loops is the number of event loops; 0: one for every two cores.
	Loops int
	// HeaderTime and IdleTime are the ReadHeaderTimeout and the IdleTimeout of the
	// http.Server.
	HeaderTime, IdleTime time.Duration
	// ReadTime is how long a client may go without reading any of its answer; 0: 30 s.
	ReadTime time.Duration
}

// loopsFor returns the default number of loops for a number of cores. On two cores that
// also run the load, one loop is fastest. docs/performance.md explains the ratio for more.
func loopsFor(cores int) int { return max(1, cores/2) }

// StartLoops starts the event loops, which answer plain requests. All other connections
// still come from Accept. With TLS it does nothing. Call it before Accept.
func (l *Listener) StartLoops(o LoopOptions) error {
	if o.Plain == nil || l.o.TLS != nil {
		return nil
	}
	n := o.Loops
	if n == 0 {
		n = loopsFor(runtime.GOMAXPROCS(0))
	}
	if o.ReadTime == 0 {
		o.ReadTime = 30 * time.Second
	}
	l.loop = o
	ctx := context.WithValue(context.Background(), http.LocalAddrContextKey, l.Addr())
	for range n {
		fd, err := l.duplicate()
		if err != nil {
			return fmt.Errorf("give an event loop the listening socket: %w", err)
		}
		p, err := newLoop(l, fd, ctx)
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		l.loops = append(l.loops, p)
	}
	l.handed = newHanded(len(l.loops))
	for _, p := range l.loops {
		p.start()
	}
	return nil
}

// duplicate returns a descriptor of the listening socket.
func (l *Listener) duplicate() (fd int, err error) {
	s, ok := l.Listener.(syscall.Conn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Control(func(of uintptr) {
		if fd, inner = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0); inner != nil {
			return
		}
		if l.Addr().Network() != "unix" {
			// Accepted connections inherit these options. Package net sets the same.
			inner = errors.Join(
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15))
		}
	})
	return fd, errors.Join(err, inner)
}

// watchListener starts or pauses accepting connections.
func (p *loop) watchListener(on bool) error {
	if p.listener < 0 || p.accepts == on {
		return nil
	}
	op := unix.EPOLL_CTL_ADD
	if !on {
		op = unix.EPOLL_CTL_DEL
	}
	p.accepts = on
	return p.watch(op, p.listener, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, acceptEvent)
}

// maxAccepted is how many connections are accepted in a row before the loop serves others.
const maxAccepted = 64

// accept accepts new connections, up to the limit.
func (p *loop) accept() {
	for range maxAccepted {
		if p.listener < 0 {
			return
		}
		select {
		case p.l.open <- struct{}{}:
		default:
			// At the limit, new connections wait in the kernel's queue until one is closed.
			if p.full.CompareAndSwap(false, true) {
				continue // one may have been closed just before
			}
			p.pauseAccept()
			return
		}
		fd, _, err := unix.Accept4(p.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == nil {
			if q := p.leastBusy(); q != p {
				q.give(fd)
				continue
			}
			err = p.add(fd)
		}
		if err == nil {
			continue
		}
		p.l.release()
		switch {
		case err == unix.EAGAIN:
			return
		case err == unix.EINTR || err == unix.ECONNABORTED:
		default:
			// Usually the process is out of descriptors. The next sweep tries again.
			p.log.Warn("cannot accept a connection", "err", err)
			p.pauseAccept()
			return
		}
	}
}

// pauseAccept stops accepting until a sweep calls resumeAccept.
func (p *loop) pauseAccept() {
	if err := p.watchListener(false); err != nil {
		p.log.Error("front: the listener", "err", err)
	}
}

func (p *loop) resumeAccept() {
	if err := p.watchListener(true); err != nil {
		p.accepts = false // the next sweep tries again
		p.log.Error("front: the listener", "err", err)
	}
}

// leastBusy returns the loop that should serve a new connection. The kernel reports most
// new connections to the same loop, so they are spread by hand. A loop that has only a
// few more than the others keeps the connection.
func (p *loop) leastBusy() *loop {
	least := p
	for _, q := range p.l.loops {
		if q.count.Load() < least.count.Load() {
			least = q
		}
	}
	if n := least.count.Load(); p.count.Load() <= n+n/8+1 {
		return p
	}
	return least
}

// give hands the loop a connection that another loop has accepted.
func (p *loop) give(fd int) {
	p.count.Add(1)
	p.tell(func() { p.given = append(p.given, fd) })
}

// takeGiven adds a connection that another loop has accepted.
func (p *loop) takeGiven(fd int) {
	p.count.Add(-1) // add counts it again
	if err := p.add(fd); err != nil {
		p.l.release()
		p.log.Warn("cannot serve a connection", "err", err)
		return
	}
	p.wakeUp(p.conns[fd]) // the loop may be about to end
}

// add adds the connection fd to the loop.
func (p *loop) add(fd int) error {
	p.serial++
	if err := p.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, int32(fd)); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	for len(p.conns) <= fd {
		p.conns = append(p.conns, nil)
	}
	p.conns[fd] = &client{fd: fd, serial: p.serial, since: p.now}
	p.count.Add(1)
	return nil
}

// closeListener stops accepting for good.
func (p *loop) closeListener() {
	if p.listener < 0 {
		return
	}
	p.pauseAccept()
	if err := unix.Close(p.listener); err != nil {
		p.log.Error("closing a listener", "err", err)
	}
	p.listener = -1
	close(p.deaf)
}

// remove takes s out of the loop.
func (p *loop) remove(s *client) {
	s.dead = true
	p.conns[s.fd] = nil
	p.count.Add(-1)
	s.in, s.out = nil, nil
}

// close closes a connection and frees its place in the limit.
func (p *loop) close(s *client) {
	if s.dead {
		return
	}
	p.remove(s)
	p.leaveIfGone(s)
	if err := unix.Close(s.fd); err != nil {
		p.log.Error("closing a connection", "err", err)
	}
	p.l.release()
}

// hangUp ends a connection after its last answer. If the client is still sending, closing
// at once would reset the connection and lose the answer. So hangUp closes it for writing
// only, and what the client sends is read and discarded for a while.
func (p *loop) hangUp(s *client) {
	if s.eof || unix.Shutdown(s.fd, unix.SHUT_WR) != nil {
		p.close(s)
		return
	}
	s.leave, s.since, s.in, s.borrowed = linger, p.now, nil, false
	p.wakeUp(s)
}

// discard reads and drops what comes after the last answer.
func (p *loop) discard(s *client) {
	for s.readable && !s.dead {
		p.read(s)
		s.in, s.borrowed = nil, false
	}
	if s.eof {
		p.close(s)
	}
}

// release frees the place of a closed connection in the limit.
func (l *Listener) release() {
	<-l.open
	for _, p := range l.loops {
		p.roomAgain()
	}
}

// roomAgain makes a loop accept again if it paused because of the limit.
func (p *loop) roomAgain() {
	if p.full.Load() && p.full.CompareAndSwap(true, false) {
		p.tell(func() { p.resume = true })
	}
}

var _ net.Listener = (*Listener)(nil)
