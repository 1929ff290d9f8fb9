package commit

import "time"

// Access for the tests of the writer's turns.

// WithoutTick returns options of a writer that does not look at the clocks every second, which
// would end any wait that lasts for want of a wake-up.
func WithoutTick(o Options) Options {
	o.tick = time.Hour
	return o
}

// Put adds a call to the queue; with lead it is the caller's turn.
func (w *Writer) Put(c *Call) (lead bool, err error) { return w.queue.put(true, c) }

// Lead takes the caller's turn.
func (w *Writer) Lead() { w.lead() }

// Ring makes the standby find that its timer has fired.
func (w *Writer) Ring() { w.timer.Reset(0) }

// StandbyWants reports whether the standby waits for the end of a caller's turn.
func (w *Writer) StandbyWants() bool {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return w.queue.standbyWants
}
