package commit

import (
	"math"
	"testing"
	"time"
)

// epoch is the initial wall time of the tests.
const epoch = int64(1_800_000_000e9)

func TestClockResumes(t *testing.T) {
	const start = int64(1000 * time.Hour)
	for _, c := range []struct {
		name string
		last Moment
		wall int64
		want int64
	}{
		{"at once", Moment{start, epoch}, epoch, start},
		{"after a while", Moment{start, epoch}, epoch + 5, start + 5},
		{"the wall clock is behind what the directory has seen", Moment{start, epoch}, epoch - int64(2*time.Hour), start},
		{"the wall clock is at 1970", Moment{start, epoch}, 0, start},
		{"the wall clock was ahead", Moment{start, epoch + int64(24*time.Hour)}, epoch + int64(24*time.Hour) + 7, start + 7},
		{"centuries have passed", Moment{start, 0}, math.MaxInt64, latestStart},
		{"centuries have passed before", Moment{latestStart + 1, 0}, math.MaxInt64, latestStart + 1},
	} {
		mono := int64(12345)
		now := ResumeClock(func() (int64, int64) { return mono, c.wall }, c.last)
		if got := now.Read(); got != (Moment{c.want, c.wall}) {
			t.Errorf("%s: %+v resumes at %+v, want %d", c.name, c.last, got, c.want)
		}
		mono++
		if got := now.Now(); got != c.want+1 {
			t.Errorf("%s: 1 ns later it is %d, want %d", c.name, got, c.want+1)
		}
	}
}

func TestStepIsWhereTheClocksDiverge(t *testing.T) {
	m := Moment{100, epoch}
	for _, c := range []struct {
		passed, step, want time.Duration
	}{
		{time.Hour, 0, 0},
		{time.Hour, ClockStep - 1, 0},
		{time.Hour, 1 - ClockStep, 0},
		{time.Hour, ClockStep, ClockStep},
		{0, -ClockStep, -ClockStep},
		{time.Second, 24 * time.Hour, 24 * time.Hour},
		{time.Second, -24 * time.Hour, -24 * time.Hour},
	} {
		n := Moment{m.Now + int64(c.passed), m.Wall + int64(c.passed+c.step)}
		if got := m.Stepped(n); got != c.want {
			t.Errorf("a step of %v in %v counts as %v, want %v", c.step, c.passed, got, c.want)
		}
	}
}

func TestMachineClockGoesOnWhileTheMachineSleeps(t *testing.T) {
	mono, wall := MachineClock()()
	if up := time.Duration(mono); up <= 0 {
		t.Errorf("the machine has been up for %v", up)
	}
	if off := time.Since(time.Unix(0, wall)); off < -time.Minute || off > time.Minute {
		t.Errorf("the wall clock is off by %v", off)
	}
}
