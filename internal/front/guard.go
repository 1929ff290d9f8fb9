package front

import "time"

// lateAfter is the longest that an owner may be in a guarded call before the deputy takes
// the loop over. The deputy checks twice in that time, so half of it may be enough.
const lateAfter = 4 * time.Millisecond

// parkAfter is how many times the deputy finds the loop without guarded calls before it
// stops checking and waits for an alert.
const parkAfter = 50

// guard calls f, which may take long. It returns false if the deputy has taken over the
// loop meanwhile. Then the caller must not touch the loop.
func (p *loop) guard(f func()) bool {
	turn := p.turn.Add(1)
	if p.parked.Load() && p.parked.CompareAndSwap(true, false) {
		p.alert <- struct{}{}
	}
	f()
	return p.turn.CompareAndSwap(turn, turn+1)
}

// deputy takes the loop over from an owner that is held up, and starts the next deputy.
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
		return true // a call has begun meanwhile
	}
	select {
	case <-p.alert:
		return true
	case <-p.ended:
		return false
	}
}

// takeOver makes the caller the owner of the loop. The former owner may still use the
// scratch buffer, so the loop gets a new one.
func (p *loop) takeOver() {
	p.scratch = make([]byte, readSize)
	if p.submitting {
		for _, s := range p.submitters {
			s.unqueued++
		}
		p.submitters, p.submitting = nil, false
		p.pace.late(lateAfter)
	}
	go p.deputy()
	p.run()
}

// pace decides whether the owner of a loop commits by itself, from how long recent commits
// took. On a slow disk it leaves commits to the writer, so that the loop goes on.
type pace struct {
	average time.Duration
	skipped int
}

// slowCommit is the average from which commits are left to the writer.
const slowCommit = 2 * time.Millisecond

// probeEvery is how many commits go by on a slow disk until the owner makes one again, to
// learn whether the disk is still slow.
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

// late notes a commit that the deputy did not wait for.
func (p *pace) late(took time.Duration) { p.average = max(p.average, took) }
