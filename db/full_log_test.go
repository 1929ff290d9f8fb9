package db

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// fullLog returns a database whose log has no room at all, not even the reserve for deletes,
// and a function that ends that.
func fullLog(t *testing.T, o Options, prepare func(*DB)) (d *DB, free func()) {
	t.Helper()
	fs := o.FS.(*memdisk.FS)
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate && path.Dir(op.Name) == path.Join(o.Dir, "log") && !strings.HasSuffix(op.Name, "00000001.seg") {
			return syscall.ENOSPC
		}
		return nil
	})
	d = mustOpen(t, o)
	prepare(d)
	for i := 0; ; i++ {
		if err := addN(d, fmt.Sprint(i%60), 1); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	resets := 0
	for i := range 60 {
		switch err := d.ResetCounter(Key{"a", fmt.Sprint(i)}); {
		case err == nil:
			resets++
		case !errors.Is(err, ErrFull):
			t.Fatal(err)
		}
	}
	if resets < 10 || resets == 60 {
		t.Fatalf("what is held back was enough for %d resets", resets)
	}
	return d, func() { fs.Fail(nil) }
}

func TestReadsGoOnWithoutAnyRoom(t *testing.T) {
	fs := memdisk.New()
	lock := LockRequest{Key: Key{"a", "lock"}, Owner: "me", Dur: time.Hour}
	d, free := fullLog(t, tiny(fs, newTestClock()), func(d *DB) {
		if _, err := d.Lock(context.Background(), lock); err != nil {
			t.Fatal(err)
		}
		if err := addN(d, "59", 0); err != nil {
			t.Fatal(err)
		}
	})
	if v, err := d.Counter(Key{"a", "59"}); err != nil {
		t.Error("a counter:", v, err)
	}
	if h, err := d.LockHolder(lock.Key); err != nil || h.Owner != "me" {
		t.Error("a lock's holder:", h, err)
	}
	other := lock
	other.Owner = "other"
	var held *HeldError
	if _, err := d.Lock(context.Background(), other); !errors.As(err, &held) && !errors.Is(err, ErrFull) {
		t.Error("a lock that is held:", err)
	}
	free()
	if err := addN(d, "new", 1); err != nil {
		t.Error("with room again:", err)
	}
	mustClose(t, d)
}

// The expiry of a hold that finds no room in the log is tried again after a pause, not in a
// busy loop.
func TestExpiryWithoutRoomDoesNotSpin(t *testing.T) {
	t.Parallel()
	fs, clock := memdisk.New(), newTestClock()
	r := LockRequest{Key: Key{"a", "lock"}, Dur: time.Hour}
	d, free := fullLog(t, tiny(fs, clock), func(d *DB) {
		if _, err := d.Lock(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	})
	clock.pass(2 * time.Hour)
	triesNowAndThen(t, d, fs, func(op memdisk.Op) bool { return op.Kind == memdisk.Create })
	free()
	mustClose(t, d)
}

// Moments of the clock are written to the log from time to time, but they do not use the room
// that is held back for deletes.
func TestNotesOfTheTimeDoNotUseTheReserve(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	fs.Fail(noSecondSegment)
	d := mustOpen(t, o)
	err := error(nil)
	for i := 0; err == nil; i++ {
		err = addN(d, fmt.Sprint(i%60), 1)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	before := d.store.Log.Stats().Appended
	for range 1000 {
		clock.pass(commit.ClockNote)
		if _, err := d.LockHolder(Key{"a", "none"}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if wrote := d.store.Log.Stats().Appended - before; wrote > 2*commit.SlotChange { // there may be room for a few
		t.Errorf("%d bytes were written", wrote)
	}
	for i := range 10 {
		wantDone(t, "a reset", d.ResetCounter(Key{"a", fmt.Sprint(i)}))
	}
	mustClose(t, d)
}

// noSecondSegment is a hook that finds the disk full when the log wants another segment.
func noSecondSegment(op memdisk.Op) error {
	if op.Kind == memdisk.Allocate && path.Base(path.Dir(op.Name)) == "log" && path.Base(op.Name) != "00000001.seg" {
		return syscall.ENOSPC
	}
	return nil
}

// triesNowAndThen checks that a database on a full disk, with an expired hold, pauses between
// its attempts to get room.
func triesNowAndThen(t *testing.T, d *DB, fs *memdisk.FS, isTry func(memdisk.Op) bool) {
	t.Helper()
	tries, enough := make(chan struct{}), make(chan struct{})
	fs.Fail(func(op memdisk.Op) error {
		if !isTry(op) {
			return nil
		}
		select {
		case tries <- struct{}{}:
		case <-enough:
		}
		return syscall.ENOSPC
	})
	began := time.Now()
	d.writer.Wake()
	for range 5 {
		soon(t, "a try to get room", tries)
	}
	close(enough)
	wantDone(t, "what goes on", d.Err())
	if took := time.Since(began); took < commit.BlockedWait { // some of them come in pairs
		t.Errorf("5 tries to get room took %v", took)
	}
}

func TestWaitsEndWithoutAnyRoom(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	r := LockRequest{Key: Key{"a", "lock"}, Owner: "holder", Dur: time.Hour}
	got := make(chan error, 3)
	ctx, hangUp := context.WithCancelCause(context.Background())
	gone := errors.New("gone")
	d, free := fullLog(t, tiny(fs, clock), func(d *DB) {
		if _, err := d.Lock(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		wait := func(n int, ctx context.Context, owner string, wait time.Duration) {
			r := r
			r.Owner, r.Wait = owner, wait
			go func() {
				_, err := d.Lock(ctx, r)
				got <- err
			}()
			awaitQueue(t, d, r.Key, n)
		}
		wait(1, context.Background(), "short", time.Minute)
		wait(2, ctx, "gone", 2*time.Hour)
		wait(3, context.Background(), "long", 2*time.Hour)
	})
	hangUp(gone)
	if err := <-got; !errors.Is(err, gone) {
		t.Error("who hangs up:", err)
	}
	clock.pass(2 * time.Minute)
	d.writer.Wake()
	var held *HeldError
	if err := <-got; !errors.As(err, &held) || held.Holder.Owner != "holder" {
		t.Error("whose wait is over:", err)
	}
	clock.pass(time.Hour)
	d.writer.Wake()
	if _, err := d.LockHolder(r.Key); !errors.Is(err, ErrNotFound) {
		t.Error("the holder, past its time:", err)
	}
	free()
	if err := <-got; err != nil {
		t.Error("who waits until there is room again:", err)
	}
	if h, err := d.LockHolder(r.Key); err != nil || h.Owner != "long" || h.Waiters != 0 {
		t.Error(h, err)
	}
	mustClose(t, d)
}

// A segment that was made smaller since the disk was full must not keep large
// values out once there is room again.
func TestRoomForLargeValuesComesBackWithTheRoom(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Segment, o.CheckpointEvery = 1<<20, 1<<20
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate && strings.HasSuffix(op.Name, "2.seg") && op.Len > 300<<10 {
			return syscall.ENOSPC
		}
		return nil
	})
	d := mustOpen(t, o)
	if err := d.store.PrepareSegment(); !disk.IsFull(err) {
		t.Fatal(err)
	}
	set := func(id string, n int) error {
		_, err := d.Set(SetRequest{Key: Key{"a", id}, Data: make([]byte, n), Check: AnyVersion})
		return err
	}
	wantDone(t, "a large value", set("0", 400<<10))
	wantDone(t, "a large value", set("1", 300<<10))
	wantFull(t, d, "a large value", set("2", 400<<10))
	wantDone(t, "a small value", set("3", 40<<10))
	wantFull(t, d, "a large value", set("2", 400<<10))
	fs.Fail(nil)
	for range 5 {
		wantDone(t, "a large value with room again", set("2", 400<<10))
	}
	mustClose(t, d)
	d = mustOpen(t, o)
	for _, id := range []string{"0", "1", "2", "3"} {
		_, err := d.Get(Key{"a", id})
		wantDone(t, id, err)
	}
	mustClose(t, d)
}
