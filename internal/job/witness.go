package job

import (
	"syscall"
	"time"
)

// sameSignal is how far apart in time two processes of a group may see the same signal.
const sameSignal = 100 * time.Millisecond

// witness separates signals for the front alone from signals for the whole process group,
// which this process gets too. The zero value is ready to use.
type witness struct {
	seen    map[syscall.Signal]time.Time // when this process got it
	pending []passedOn                   // what the front got and this process has not seen yet
	timer   <-chan time.Time
}

type passedOn struct {
	signal syscall.Signal
	at     time.Time
}

// saw notes that this process got a signal.
func (w *witness) saw(s syscall.Signal) {
	if w.seen == nil {
		w.seen = map[syscall.Signal]time.Time{}
	}
	w.seen[s] = time.Now()
}

// passed notes that the front got a signal.
func (w *witness) passed(s syscall.Signal) {
	w.pending = append(w.pending, passedOn{s, time.Now()})
	if w.timer == nil {
		w.timer = time.After(sameSignal)
	}
}

// due fires when alone has to be called.
func (w *witness) due() <-chan time.Time { return w.timer }

// alone returns the signals that only the front got.
func (w *witness) alone() []syscall.Signal {
	var alone []syscall.Signal
	now := time.Now()
	w.timer = nil
	for len(w.pending) > 0 && now.Sub(w.pending[0].at) >= sameSignal {
		p := w.pending[0]
		w.pending = w.pending[1:]
		if seen, ok := w.seen[p.signal]; !ok || p.at.Sub(seen) > sameSignal {
			alone = append(alone, p.signal)
		}
	}
	if len(w.pending) > 0 {
		w.timer = time.After(sameSignal - now.Sub(w.pending[0].at))
	}
	return alone
}
