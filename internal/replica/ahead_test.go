package replica

import (
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/db/commit"
	"clouddragon/internal/disk"
)

// TestLocksLastOnAServerWhoseClockIsAhead promotes a standby whose clock is an hour ahead. A lock
// that is held for less is still held.
func TestLocksLastOnAServerWhoseClockIsAhead(t *testing.T) {
	r := newRig(t)
	o := r.o
	machine := commit.MachineClock()
	r.o.Clock = func() (mono, wall int64) {
		mono, wall = machine()
		return mono, wall + int64(time.Hour)
	}
	r.newStandby()
	stop := r.run()
	take := &db.LockTake{LockRequest: db.LockRequest{Key: db.Key{Acc: "1", ID: "l"}, Dur: 10 * time.Minute}}
	r.inSync()
	if err := r.d.Do(take); err != nil {
		t.Fatal(err)
	}
	r.mustAdd(1) // the batch before it is applied with the next
	until(t, "the standby has compared the times", func() bool { return r.sb.Ahead() > 0 })
	if ahead := r.sb.Ahead(); ahead < time.Hour-time.Second || ahead > time.Hour+patience {
		t.Errorf("the standby is ahead by %v, want an hour", ahead)
	}
	if _, err := r.sb.Promote(false); err != nil {
		t.Fatal(err)
	}
	stop()
	state := r.state()
	o.Dir, o.Clock = r.dir, r.o.Clock
	if err := TakeOver(disk.OS{}, o, &state, r.sb.Ahead()); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	read := &db.LockRead{Key: take.Key}
	if err := d.Do(read); err != nil {
		t.Fatal(err)
	}
	if left := read.Holders.Holders[0].TTL; left <= 0 || left > take.Dur+patience {
		t.Errorf("a lock of %v is held for %v more", take.Dur, left)
	}
}

// TestSlowBeatsHoldNoLocksLonger compares times by beats that took long to come, or come from a
// server that is ahead.
func TestSlowBeatsHoldNoLocksLonger(t *testing.T) {
	s := &Standby{}
	ahead := func(want time.Duration, samples ...time.Duration) {
		t.Helper()
		for _, x := range samples {
			s.times.add(x)
		}
		if got := s.Ahead(); got != want {
			t.Errorf("ahead by %v, want %v", got, want)
		}
	}
	ahead(0)
	ahead(time.Minute, time.Minute)
	ahead(time.Second, time.Second, 3*time.Second, 3*time.Second)
	ahead(0, -time.Hour)
}
