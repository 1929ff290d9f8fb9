package db

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Everything that ends, on disk and in memory, ends in database time. It begins
// as the wall time at which the directory is made, advances with the monotonic
// clock while a process has the directory open, and with the wall clock in
// between. It never goes back and never jumps while the database is open, so a
// step of the wall clock ends nothing early and prolongs nothing.
//
// What is written is one moment in both times. It goes into CHECKPOINT, into
// every durability mark, and into each batch that
//
//   - writes an end: after a restart nothing has longer left than it was given
//   - removes a value because its time is over: it cannot come back
//   - comes after a step of the wall clock
//   - comes clockNote after the moment before it, with other operations or alone
//
// A start takes the latest moment and adds the wall time that has passed since,
// or nothing if the wall clock is behind it.

// Clock returns the time in nanoseconds. mono never steps, and counts the time
// that the machine sleeps. wall is since 1970.
type Clock func() (mono, wall int64)

// machineClock returns the machine's clocks. Its mono is CLOCK_BOOTTIME, since
// the monotonic clock of package time stands still while the machine sleeps.
func machineClock() Clock {
	return func() (mono, wall int64) {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic("db: read CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
		}
		return ts.Nano(), time.Now().UnixNano()
	}
}

const (
	// clockTick is how often an idle database looks at the clocks. Package time's
	// timers stand still while the machine sleeps, so what ended meanwhile is
	// noticed this much later at most.
	clockTick = time.Second
	// clockNote is the longest time without a moment in the log: how far database
	// time can fall back if a crash and a step of the wall clock come together.
	clockNote = time.Minute
	// clockStep is how far the clocks must diverge to count as a step. NTP slews
	// both clocks alike, and daemons step by no less than 128 ms; two readings
	// one after the other are seldom this far apart.
	clockStep = 100 * time.Millisecond
	// latestStart leaves room for the longest ttl, a century, and a decade of running
	// on, whatever the wall clock says.
	latestStart = math.MaxInt64 - 110*365*24*int64(time.Hour)
)

// moment is one instant in both times, in nanoseconds.
type moment struct {
	now  int64 // database time
	wall int64 // since 1970
}

// later returns the later of two moments of one directory. Of two at the same
// instant it is n.
func (m moment) later(n moment) moment {
	if n.now >= m.now {
		return n
	}
	return m
}

// resume returns the moment at which a process starts when the wall clock shows wall.
func (m moment) resume(wall int64) moment {
	passed := min(max(0, wall-m.wall), max(0, latestStart-m.now))
	return moment{m.now + passed, wall}
}

// stepped returns how far the wall clock was set forward between m and n; it is
// negative if it was set back, and 0 unless that counts as a step.
func (m moment) stepped(n moment) time.Duration {
	step := time.Duration((n.wall - m.wall) - (n.now - m.now))
	if -clockStep < step && step < clockStep {
		return 0
	}
	return step
}

// databaseClock tells database time. It does not change once it is made.
type databaseClock struct {
	clock Clock
	zero  int64 // database time at the zero of the monotonic clock
}

// resumeClock goes on from the latest moment that a directory has seen.
func resumeClock(c Clock, last moment) databaseClock {
	mono, wall := c()
	return databaseClock{clock: c, zero: last.resume(wall).now - mono}
}

func (c databaseClock) read() moment {
	mono, wall := c.clock()
	return moment{now: mono + c.zero, wall: wall}
}

func (c databaseClock) now() int64 { return c.read().now }
