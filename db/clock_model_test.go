package db

import (
	"clouddragon/db/commit"
	"errors"
	"time"

	"pgregory.net/rapid"
)

// modelTime is database time as a model keeps it, over steps of the wall clock
// and restarts.
type modelTime struct {
	clock  *testClock
	zero   int64         // database time at the zero of the monotonic clock
	given  int64         // when the last thing with an end was given
	ended  commit.Moment // the end of the last process
	closed bool          // it was closed, not killed
}

func newModelTime() modelTime {
	return modelTime{clock: newTestClock(), ended: commit.Moment{Now: epoch, Wall: epoch}}
}

// now returns database time.
func (m *modelTime) now() int64 {
	mono, _ := m.clock.read()
	return mono + m.zero
}

// give notes that something with an expiry was stored or granted.
func (m *modelTime) give() { m.given = m.now() }

// step draws a step of the wall clock.
func (m *modelTime) step(t *rapid.T) {
	m.clock.step(time.Duration(rapid.IntRange(-50, 50).Draw(t, "seconds forward")) * time.Second)
}

// pass advances the clock.
func (m *modelTime) pass(t *rapid.T) {
	m.clock.pass(time.Duration(rapid.IntRange(0, 50).Draw(t, "seconds")) * time.Second)
}

// notices makes a process notice all steps so far, using only reads. That may have to wait
// until a segment is ready.
func (m *modelTime) notices(t *rapid.T, d *DB) {
	for noticed := false; !noticed; {
		if _, err := d.LockHolder(Key{"lock", "none"}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		noticed = d.writer.Position().Moment.Stepped(d.store.Clock.Read()) == 0
	}
}

// end notes the end of a process that has noticed all steps.
func (m *modelTime) end(t *rapid.T, d *DB, closed bool) {
	m.notices(t, d)
	_, wall := m.clock.read()
	m.ended, m.closed = commit.Moment{Now: m.now(), Wall: wall}, closed
}

// down lets time go by while no process has the directory, and may set the wall
// clock. The machine starts anew.
func (m *modelTime) down(t *rapid.T) {
	m.clock.restart()
	m.clock.pass(time.Duration(rapid.IntRange(0, 50).Draw(t, "seconds down")) * time.Second)
	if rapid.Bool().Draw(t, "the wall clock steps meanwhile") {
		m.step(t)
	}
}

// resume checks the time at which a process starts: the wall time since the last one has
// passed. If the wall clock went back, database time continues where it was. After a kill it
// may continue up to commit.ClockNote earlier, but not before the time of any grant.
func (m *modelTime) resume(t *rapid.T, d *DB) {
	mono, wall := m.clock.read()
	now := timeOf(d)
	least := m.ended.Now
	if !m.closed {
		least = max(m.given, least-int64(commit.ClockNote))
	}
	want := m.ended.Now + wall - m.ended.Wall
	if now != want && (want >= m.ended.Now || now < max(want, least) || now > m.ended.Now) {
		t.Fatalf("time starts at %d; the last process ended at %+v (closed: %t), the wall clock is at %d, the last thing was given at %d",
			now, m.ended, m.closed, wall, m.given)
	}
	m.zero = now - mono
}
