package commit

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// All ends, on disk and in memory, are in database time. It begins as the wall time at
// which the directory is made. While a process has the directory open it advances with the
// monotonic clock, otherwise with the wall clock. It never goes back, and never jumps while
// the database is open. So setting the wall clock neither ends nor prolongs anything.
//
// What is written is one moment in both times. It goes into CHECKPOINT, into
// every durability mark, and into each batch that
//
//   - writes an end: after a restart nothing has more time left than it was given
//   - removes an expired value: it cannot come back
//   - comes after a step of the wall clock
//   - comes ClockNote after the moment before it, with other operations or alone
//
// A start takes the latest moment and adds the wall time that has passed since,
// or nothing if the wall clock is behind it.

// Clock returns the time in nanoseconds. mono never steps, and includes the time that the
// machine sleeps. wall is since 1970.
type Clock func() (mono, wall int64)

// MachineClock returns the machine's clocks. Its mono is CLOCK_BOOTTIME, since
// the monotonic clock of package time stands still while the machine sleeps.
func MachineClock() Clock {
	return func() (mono, wall int64) {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic("db: read CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
		}
		return ts.Nano(), time.Now().UnixNano()
	}
}

const (
	// ClockTick is how often an idle database looks at the clocks. Package time's
	// timers stand still while the machine sleeps, so what expired meanwhile is
	// noticed at most this much later.
	ClockTick = time.Second
	// ClockNote is the longest time without a moment in the log: how far database
	// time can fall back if a crash and a step of the wall clock come together.
	ClockNote = time.Minute
	// ClockStep is how far the clocks must diverge to count as a step. NTP slews
	// both clocks alike, and daemons step by no less than 128 ms; two readings
	// one after the other are seldom this far apart.
	ClockStep = 100 * time.Millisecond
	// latestStart leaves room for the longest ttl, a century, and a decade of running
	// on, whatever the wall clock says.
	latestStart = math.MaxInt64 - 110*365*24*int64(time.Hour)
)

// Moment is one instant in both times, in nanoseconds.
type Moment struct {
	Now  int64 // database time
	Wall int64 // since 1970
}

// Later returns the later of two moments of one directory. Of two at the same
// instant it is n.
func (m Moment) Later(n Moment) Moment {
	if n.Now >= m.Now {
		return n
	}
	return m
}

// Resume returns the moment at which a process starts when the wall clock shows wall.
func (m Moment) Resume(wall int64) Moment {
	passed := min(max(0, wall-m.Wall), max(0, latestStart-m.Now))
	return Moment{m.Now + passed, wall}
}

// Stepped returns how far the wall clock was set forward between m and n; it is
// negative if it was set back, and 0 unless that counts as a step.
func (m Moment) Stepped(n Moment) time.Duration {
	step := time.Duration((n.Wall - m.Wall) - (n.Now - m.Now))
	if -ClockStep < step && step < ClockStep {
		return 0
	}
	return step
}

// MomentSize is the size of a moment in a file, in bytes; part of the file format,
// never changed.
//
//	0  i64 database time
//	8  i64 wall time
const MomentSize = 16

// Put writes the moment to b.
func (m Moment) Put(b []byte) {
	le.PutUint64(b, uint64(m.Now))
	le.PutUint64(b[8:], uint64(m.Wall))
}

// GetMoment reads a moment from b.
func GetMoment(b []byte) Moment {
	return Moment{Now: int64(le.Uint64(b)), Wall: int64(le.Uint64(b[8:]))}
}

// DatabaseClock tells database time. It does not change once it is made.
type DatabaseClock struct {
	clock Clock
	zero  int64 // database time at the zero of the monotonic clock
}

// ResumeClock goes on from the latest moment that a directory has seen.
func ResumeClock(c Clock, last Moment) DatabaseClock {
	mono, wall := c()
	return DatabaseClock{clock: c, zero: last.Resume(wall).Now - mono}
}

// Read returns the current moment.
func (c DatabaseClock) Read() Moment {
	mono, wall := c.clock()
	return Moment{Now: mono + c.zero, Wall: wall}
}

// Now returns the current database time, in ns.
func (c DatabaseClock) Now() int64 { return c.Read().Now }
