package db

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// restart stops a process cleanly or by a power cut, and starts the next one with another
// monotonic clock.
func restart(t *testing.T, d *DB, fs *memdisk.FS, clock *testClock, how string, down time.Duration) (*DB, *memdisk.FS) {
	t.Helper()
	next := fs
	if how == "power cut" {
		next = fs.Cut(fs.Len()).Nothing()
	}
	mustClose(t, d)
	clock.restart()
	clock.step(down)
	return mustOpen(t, tiny(next, clock)), next
}

var bothEnds = []string{"close", "power cut"}

var valueKey = Key{"1", "v"}

func storeValue(t *testing.T, d *DB, ttl time.Duration) {
	t.Helper()
	_, err := d.Set(SetRequest{Key: valueKey, Data: []byte("x"), TTL: ttl, Check: AnyVersion})
	wantDone(t, "store", err)
}

func wantValue(t *testing.T, d *DB, there bool, when string) {
	t.Helper()
	if _, err := d.Get(valueKey); err == nil != there || err != nil && !errors.Is(err, ErrNotFound) {
		t.Errorf("%s: the value is there: %t (%v), want %t", when, err == nil, err, there)
	}
}

// Values and holds from before or after a step of the wall clock survive a restart until their
// expiry, and no longer.
func TestClockStepBeforeARestartNeitherEndsNorProlongs(t *testing.T) {
	for _, how := range bothEnds {
		for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour, time.Second, -time.Second} {
			for _, when := range []string{"before", "after"} {
				fs, clock := memdisk.New(), newTestClock()
				d := mustOpen(t, tiny(fs, clock))
				name := how + ", a step of " + step.String() + " " + when
				if when == "before" {
					clock.step(step)
				}
				storeValue(t, d, time.Hour)
				token := hold(t, d, "me", time.Hour)
				clock.pass(20 * time.Minute)
				if when == "after" {
					clock.step(step)
					if _, err := d.LockHolder(Key{"1", "another"}); !errors.Is(err, ErrNotFound) {
						t.Fatal(err)
					}
				}
				d, _ = restart(t, d, fs, clock, how, 10*time.Minute)
				wantValue(t, d, true, name)
				_, wall := clock.read()
				wantHolder(t, d, Holder{Owner: "me", Token: token, TTL: 30 * time.Minute, Expires: time.Unix(0, wall).Add(30 * time.Minute)})
				clock.pass(30*time.Minute - 1)
				wantValue(t, d, true, name+", just before its time")
				clock.pass(1)
				wantValue(t, d, false, name+", at its time")
				if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: the lock is held past its time: %v", name, err)
				}
				mustClose(t, d)
			}
		}
	}
}

func TestNothingHasLongerLeftAfterARestartThanItWasGiven(t *testing.T) {
	for _, how := range bothEnds {
		for _, what := range []string{"a value", "a lock"} {
			fs, clock := memdisk.New(), newTestClock()
			d := mustOpen(t, tiny(fs, clock))
			clock.pass(50 * time.Second) // too short a while for a moment in the log
			give, there := func() { storeValue(t, d, time.Minute) }, func() error { _, err := d.Get(valueKey); return err }
			if what == "a lock" {
				give, there = func() { hold(t, d, "me", time.Minute) }, func() error { _, err := d.LockHolder(door); return err }
			}
			give()
			d, _ = restart(t, d, fs, clock, how, -2*time.Hour)
			clock.pass(time.Minute - 1)
			if err := there(); err != nil {
				t.Errorf("%s, %s before its time: %v", how, what, err)
			}
			clock.pass(1)
			if err := there(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s, %s after its time: %v", how, what, err)
			}
			mustClose(t, d)
		}
	}
}

func TestExpiredValueThatWasDeletedStaysGone(t *testing.T) {
	for _, how := range bothEnds {
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		storeValue(t, d, time.Hour)
		clock.pass(2 * time.Hour)
		wantValue(t, d, false, "after its time")
		wantDone(t, "delete", d.DeleteValue(valueKey, AnyVersion))
		d, _ = restart(t, d, fs, clock, how, -90*time.Minute)
		wantValue(t, d, false, how)
		if n := d.Stats().Values.Keys; n != 0 { // whatever time it is
			t.Errorf("%s: the index has %d keys", how, n)
		}
		mustClose(t, d)
	}
}

// Nothing deletes the expired value and nothing else is written. The log gets the time all the
// same.
func TestExpiredValueStaysGoneThoughNobodyDeletedIt(t *testing.T) {
	for _, how := range bothEnds {
		for _, after := range []time.Duration{0, commit.ClockNote} {
			fs, clock := memdisk.New(), newTestClock()
			d := mustOpen(t, tiny(fs, clock))
			storeValue(t, d, time.Hour)
			clock.pass(time.Hour)
			clock.pass(after)
			wantValue(t, d, false, "after its time")
			if how == "power cut" {
				awaitMoment(t, d, clock)
			}
			d, _ = restart(t, d, fs, clock, how, -90*time.Minute)
			wantValue(t, d, false, how)
			mustClose(t, d)
		}
	}
}

// awaitMoment waits until an idle database has the moment in the log by itself.
func awaitMoment(t *testing.T, d *DB, clock *testClock) {
	t.Helper()
	_, wall := clock.read()
	await(t, "the moment is in the log", func() bool { return d.writer.Position().Moment.Wall == wall })
}

func TestIdleDatabaseNotesAStep(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	var log bytes.Buffer
	o := tiny(fs, clock)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	d := mustOpen(t, o)
	token := hold(t, d, "me", time.Hour)
	for range 3 { // the first may be noticed while the database starts
		clock.step(8 * time.Hour)
		awaitMoment(t, d, clock)
	}
	d, _ = restart(t, d, fs, clock, "power cut", time.Minute)
	_, wall := clock.read()
	wantHolder(t, d, Holder{Owner: "me", Token: token, TTL: 59 * time.Minute, Expires: time.Unix(0, wall).Add(59 * time.Minute)})
	mustClose(t, d)
	if s := log.String(); !strings.Contains(s, "the wall clock was set") || !strings.Contains(s, "8h0m0s") {
		t.Errorf("the log says nothing of the step: %s", s)
	}
}

func TestStartSaysThatTheWallClockIsBehind(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	var log bytes.Buffer
	o := tiny(fs, clock)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, by := range []time.Duration{0, time.Hour, -time.Hour} {
		clock.step(by)
		log.Reset()
		mustClose(t, mustOpen(t, o))
		if said := strings.Contains(log.String(), "behind=1h0m0s"); said != (by < 0) {
			t.Errorf("the clock was set by %v: %s", by, log.String())
		}
	}
}

// An idle database whose clock is not set writes once every commit.ClockNote.
func TestIdleDatabaseRarelyWrites(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	before := d.store.Log.Stats().Appended
	for range 10 {
		clock.pass(commit.ClockNote - 1)
		if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		clock.pass(1)
		if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	const batch = 48 + 24 // header and moment
	if wrote := d.store.Log.Stats().Appended - before; wrote != 10*batch {
		t.Errorf("10 minutes of idleness wrote %d bytes, want %d", wrote, 10*batch)
	}
	mustClose(t, d)
}

// An expired value leaves the index while its record is still in the log. It must not come
// back if a crash loses the time at which that happened.
func TestCompactedExpiredValueStaysGone(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	o.CheckpointEvery = 1 << 30 // none but the test's, and the one that frees the segment
	d := mustOpen(t, o)
	storeValue(t, d, 30*time.Second)
	for i := range 30 {
		_, err := d.Set(SetRequest{Key: Key{"1", "fill"}, Data: make([]byte, 3000+i), Check: AnyVersion})
		wantDone(t, "fill", err)
	}
	wantDone(t, "checkpoint", d.store.Checkpoint())
	clock.pass(30 * time.Second)
	from := fs.Len()
	d.store.CompactSegment(1)
	mustClose(t, d)
	clock.restart()
	clock.step(-time.Hour)
	for cut := range fs.Cuts() {
		op := cut.Last()
		if cut.At() <= from || op.Kind != memdisk.Write || !strings.HasSuffix(op.Name, store.CheckpointName) {
			continue
		}
		next := mustOpen(t, tiny(cut.Nothing(), clock))
		wantValue(t, next, false, "the segment is compacted, and not yet freed")
		mustClose(t, next)
		return
	}
	t.Error("no checkpoint freed the segment")
}

// An old directory is refused by a line that says so, and is left as it is.
func TestDirectoryOfAnotherFormatIsRefused(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	mustClose(t, mustOpen(t, o))
	name := o.Dir + "/" + store.CheckpointName
	b, err := fs.ReadFile(name)
	wantDone(t, "read", err)
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[len(b)/2+8:], 1)
	wantDone(t, "write", fs.WriteFile(name, b))
	_, err = Open(o)
	var damage *disk.Damage
	if !errors.Is(err, store.ErrFormat) || errors.As(err, &damage) || !strings.Contains(err.Error(), "format 1") {
		t.Errorf("a directory of format 1: %v", err)
	}
	if n := fs.OpenHandles(); n > 0 {
		t.Errorf("%d handles stay open", n)
	}
	_, err = Verify(fs, o.Dir, func(d *disk.Damage) { t.Errorf("damage: %v", d) }, nil)
	if !errors.Is(err, store.ErrFormat) {
		t.Errorf("verify: %v", err)
	}
}

// A waiter's turn comes while the machine sleeps, so the timer fires late.
func TestMutexIsHandedOverThoughTheTimerStoodStill(t *testing.T) {
	clock := newTestClock()
	o := tiny(memdisk.New(), clock)
	d := mustOpen(t, o)
	if _, err := d.LockMutex(context.Background(), LockRequest{Key: door, Owner: "first", Dur: time.Hour}); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := d.LockMutex(context.Background(), LockRequest{Key: door, Owner: "second", Dur: time.Hour, Wait: 2 * time.Hour})
		got <- err
	}()
	await(t, "the second waits", func() bool { return d.Stats().Mutexes.Waiting > 0 })
	clock.pass(time.Hour)
	select {
	case err := <-got:
		wantDone(t, "the second", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the second waits on")
	}
	mustClose(t, d)
}
