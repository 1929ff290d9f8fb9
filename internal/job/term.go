package job

import "time"

// term computes the deadlines of a lock, on the clock of package boottime, from the
// earliest time at which the lock can expire.
type term struct {
	dur       time.Duration // what each renewal asks for
	killAfter time.Duration // from TERM to KILL
	end       time.Duration // the lock is held at least until then
}

// newTerm limits killAfter to a third of dur.
func newTerm(dur, killAfter time.Duration) term {
	return term{dur: dur, killAfter: min(killAfter, dur/3)}
}

// margin is how long before the lock's end the command must have ended.
func (t *term) margin() time.Duration { return min(t.dur/10, 3*time.Second) }

// renewAt is when the lock is renewed: after a third of its duration.
func (t *term) renewAt() time.Duration { return t.end - t.dur + t.dur/3 }

// retry is the time between a failed renewal and the next try.
func (t *term) retry() time.Duration { return min(t.dur/24, time.Second) }

// killAt is when the command gets KILL at the latest.
func (t *term) killAt() time.Duration { return t.end - t.margin() }

// stopAt is when the command gets TERM at the latest.
func (t *term) stopAt() time.Duration { return t.killAt() - t.killAfter }
