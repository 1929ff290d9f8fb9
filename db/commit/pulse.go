package commit

import "sync/atomic"

// pulse is the leader's sign of life for a watchdog.
type pulse struct {
	steps  atomic.Uint64 // counts the start of each round, and the start and end of each append
	onDisk atomic.Bool   // an append is under way
}

// appending records that an append begins or ends.
func (p *pulse) appending(begins bool) {
	p.steps.Add(1)
	p.onDisk.Store(begins)
}

// Pulse shows whether the writer makes progress: compare it with an earlier one.
type Pulse struct {
	Steps uint64 // grows with everything that the writer does
	Busy  bool   // calls are waiting or there is a leader; false once the writer is closed
	// OnDisk says that a batch is being written and synced, which takes as long as the disk
	// takes.
	OnDisk bool
}

// Pulse reads the writer's pulse. It waits for no batch.
func (w *Writer) Pulse() Pulse {
	steps := w.pulse.steps.Load()
	return Pulse{Steps: steps, Busy: w.queue.active(), OnDisk: w.pulse.onDisk.Load()}
}
