package front

import "time"

const (
	sweepEvery = time.Second
	// readRate is how many bytes a second a client has to read of an answer. It gets
	// LoopOptions.ReadTime in addition.
	readRate = 16 << 10
	// lingerFor is how long input is read and discarded after the last answer.
	lingerFor = time.Second
	// restTime is how long a loop waits for the rest of a request. Then it hands the
	// connection over, and net/http answers a request that never ends.
	restTime = time.Second
)

// untilSweep returns how long epoll may wait, in ms.
func (p *loop) untilSweep() int {
	if p.count.Load() == 0 && p.accepts && !p.wanted() {
		return -1
	}
	left := time.Until(p.swept.Add(sweepEvery))
	return int(max(0, left+time.Millisecond-1) / time.Millisecond)
}

// wanted reports whether a sweep is needed although there is no connection.
func (p *loop) wanted() bool { return p.closing && p.listener >= 0 || p.stopping }

// sweep runs every second and closes or hands over connections whose time is over.
func (p *loop) sweep() {
	p.mu.Lock()
	closing, resume := p.closing, p.resume
	p.resume = false
	stop := p.stopping && !p.stopSeen
	p.stopSeen = p.stopping
	given := p.given
	p.given = nil
	p.mu.Unlock()
	for _, fd := range given {
		p.takeGiven(fd)
	}
	if closing {
		p.closeListener()
	} else if resume {
		p.resumeAccept()
	}
	if stop {
		for _, s := range p.conns {
			if s != nil {
				p.wakeUp(s)
			}
		}
	}
	if p.now.Sub(p.swept) < sweepEvery {
		return
	}
	p.swept = p.now
	if !closing {
		p.resumeAccept() // after a lack of descriptors
	}
	for _, s := range p.conns {
		if s != nil {
			p.sweepOne(s)
		}
	}
}

func (p *loop) sweepOne(s *client) {
	age := p.now.Sub(s.since)
	switch {
	case len(s.out) > 0:
		if !s.late.IsZero() && p.now.After(s.late) {
			p.close(s)
		}
	case s.count > 0:
		// An answer is being made.
	case s.leave == linger:
		if age >= lingerFor {
			p.close(s)
		}
	case s.asks():
		if age >= restTime || p.stopSeen {
			s.leave = handOver
			p.wakeUp(s)
		}
	case !s.served:
		if age >= p.l.loop.HeaderTime {
			p.close(s)
		}
	default:
		if age >= p.l.loop.IdleTime {
			p.close(s)
		}
	}
}
