package front

import "time"

// lateAfter is after how long at most, and half of it at least, the deputy takes a
// loop over whose owner is in a guarded call.
const lateAfter = 4 * time.Millisecond

// parkAfter is how often the deputy looks at a loop that does nothing before it
// waits to be alerted.
const parkAfter = 50

// guard calls f, which may take long. It returns false if the deputy owns the loop
// by now: then the caller must not touch it.
func (p *loop) guard(f func()) bool {
	turn := p.turn.Add(1)
	if p.parked.Load() && p.parked.CompareAndSwap(true, false) {
		p.alert <- struct{}{}
	}
	f()
	return p.turn.CompareAndSwap(turn, turn+1)
}

// deputy takes the loop over from an owner that is held up. The new owner has a
// deputy of its own.
func (p *loop) deputy() {
	tick := time.NewTicker(lateAfter / 2)
	defer tick.Stop()
	last, idle := uint64(0), 0
	for {
		select {
		case <-tick.C:
		case <-p.ended:
			return
		}
		turn := p.turn.Load()
		switch {
		case turn != last:
			last, idle = turn, 0
		case turn%2 == 1:
			if p.turn.CompareAndSwap(turn, turn+1) {
				p.takeOver()
				return
			}
		default:
			if idle++; idle < parkAfter {
				break
			}
			tick.Stop()
			if !p.park(turn) {
				return
			}
			tick.Reset(lateAfter / 2)
			idle = 0
		}
	}
}

// park waits until a guarded call begins. It returns false if the loop ends.
func (p *loop) park(turn uint64) bool {
	p.parked.Store(true)
	if p.turn.Load() != turn && p.parked.CompareAndSwap(true, false) {
		return true // one has begun meanwhile
	}
	select {
	case <-p.alert:
		return true
	case <-p.ended:
		return false
	}
}

// takeOver makes the caller the owner of the loop. What the goroutine before may
// still look at is left to it.
func (p *loop) takeOver() {
	p.scratch = make([]byte, readSize)
	if p.submitting {
		p.submitting = false
		p.pace.late(lateAfter)
	}
	go p.deputy()
	p.run()
}

// pace tells whether the owner of a loop should commit, from how long that took
// lately. Where the disk is slow, the writer commits, and the loop goes on.
type pace struct {
	average time.Duration
	skipped int
}

// slowCommit is from which average on the writer commits.
const slowCommit = 2 * time.Millisecond

// probeEvery is how often the owner of a loop commits where the disk was slow, to
// learn whether it still is.
const probeEvery = 16

func (p *pace) mayLead() bool {
	if p.average < slowCommit {
		return true
	}
	p.skipped++
	return p.skipped%probeEvery == 0
}

// led notes how long a commit took.
func (p *pace) led(took time.Duration) { p.average += (took - p.average) / 8 }

// late notes a commit that was not waited for.
func (p *pace) late(took time.Duration) { p.average = max(p.average, took) }
