package front

import "golang.org/x/sys/unix"

// An exchange that waits for something other than a commit, or longer than one takes, needs no
// goroutine. Until it is answered, its connection starts no other request, and epoll reports if
// the client hangs up. A client that closes only its own side counts as gone: see Conn.Watch.

// maxResumed is how many exchanges are resumed in a row before the loop serves others.
const maxResumed = 64

// resumeSome resumes exchanges whose wait is over. It returns false if the loop has another
// owner now.
func (p *loop) resumeSome() bool {
	for range min(maxResumed, len(p.woken)) {
		x := p.woken[0]
		p.woken[0] = nil
		if p.woken = p.woken[1:]; len(p.woken) == 0 {
			p.woken = nil
		}
		if !p.resumeOne(x) {
			return false
		}
	}
	return true
}

func (p *loop) resumeOne(x *Exchange) bool {
	s := x.conn
	x.Gone = p.gone(s)
	if s.dead {
		// Resume has little to do, because x is gone. It may have to wait for an answer that it
		// has asked for.
		if p.plain.Resume(x) == Waiting {
			p.waits(x)
		} else {
			p.open--
		}
		return true
	}
	s.starting = true
	if !p.guard(func() { x.verdict = p.plain.Resume(x) }) {
		p.tell(func() { p.started = append(p.started, x) })
		return false
	}
	p.act(x)
	p.wakeUp(s)
	return true
}

// waits notes that x waits.
func (p *loop) waits(x *Exchange) {
	x.conn.kept = x
	if x.early {
		x.early = false
		p.woken = append(p.woken, x)
		return
	}
	x.waiting = true
}

// gone asks the socket whether the client has hung up, since epoll may report that only later.
func (p *loop) gone(s *client) bool {
	if s.dead || s.ending {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
	for {
		// The only error of a valid call is that a signal came.
		if _, err := unix.Poll(fds, 0); err != unix.EINTR {
			return fds[0].Revents&(hangup|unix.POLLNVAL) != 0
		}
	}
}

// leaveIfGone has the request of s that waits leave if the client has hung up.
func (p *loop) leaveIfGone(s *client) {
	x := s.kept
	if x == nil || x.left || !s.ending && !s.dead || !x.waiting && !x.submitted {
		return
	}
	x.left = true
	p.plain.Leave(x)
}
