package front

import (
	"time"

	"golang.org/x/sys/unix"
)

// EndLoops closes the loops' connections as soon as their requests are answered, and
// those that have none at once, and returns once the loops have ended, at the latest
// after limit. The listener is closed before. Then Accept says net.ErrClosed.
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

// over reports whether the loop has ended.
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
	return stopping && p.count.Load() == 0 && len(p.runnable) == 0
}

// end lets go of the loop's descriptors.
func (p *loop) end() {
	p.closeListener()
	// Whoever posts something from here on wakes nobody: the owner is not asleep.
	for _, fd := range [...]int{p.epoll, p.wakeup} {
		if err := unix.Close(fd); err != nil {
			p.log.Error("closing a descriptor of a loop", "err", err)
		}
	}
	close(p.ended)
	p.l.handed.loopEnded()
}
