package front

import (
	"time"

	"golang.org/x/sys/unix"
)

// EndLoops closes each connection of the loops once its requests are answered, and returns
// when all loops have ended or limit has passed. Close the listener before. Afterwards
// Accept returns net.ErrClosed.
func (l *Listener) EndLoops(limit time.Duration) {
	for _, p := range l.loops {
		p.tell(func() { p.stopping = true })
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	for _, p := range l.loops {
		select {
		case <-p.ended:
			continue
		case <-late.C:
		}
		for _, p := range l.loops {
			p.tell(func() { p.killed = true })
		}
		break
	}
	for _, p := range l.loops {
		<-p.ended
	}
}

// over reports whether the loop has ended. Unless connections are cut, it first lets Plain finish
// what clients that are gone have asked for, since that may give back what they were granted.
func (p *loop) over() bool {
	p.mu.Lock()
	stopping, killed := p.stopping, p.killed
	p.mu.Unlock()
	if killed {
		for _, s := range p.conns {
			if s != nil {
				p.close(s)
			}
		}
	}
	return stopping && p.count.Load() == 0 && len(p.runnable) == 0 && (killed || p.open == 0)
}

// end lets go of the loop's descriptors.
func (p *loop) end() {
	p.closeListener()
	// From here on the owner is not asleep, so tell does not use the eventfd.
	for _, fd := range [...]int{p.epoll, p.wakeup} {
		if err := unix.Close(fd); err != nil {
			p.log.Error("closing a descriptor of a loop", "err", err)
		}
	}
	close(p.ended)
	p.l.handed.loopEnded()
}
