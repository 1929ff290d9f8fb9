package commit

import "sync/atomic"

// pulse is what the leader leaves for a watchdog.
type pulse struct {
	steps  atomic.Uint64 // rounds and appends, begun and ended
	onDisk atomic.Bool   // an append is under way
}

// appending notes that an append begins or ends.
func (p *pulse) appending(begins bool) {
	p.steps.Add(1)
	p.onDisk.Store(begins)
}

// Pulse shows whether the writer makes progress: compare it with an earlier one.
type Pulse struct {
	Steps uint64 // grows with all that the writer does
	Busy  bool   // calls wait, or somebody is the leader; false once the writer is closed
	// OnDisk says that a batch is written to the log and synced, which takes as long
	// as the disk takes.
	OnDisk bool
}

// Pulse reads the writer's pulse. It waits for no batch.
func (w *Writer) Pulse() Pulse {
	steps := w.pulse.steps.Load()
	return Pulse{Steps: steps, Busy: w.queue.active(), OnDisk: w.pulse.onDisk.Load()}
}
