package db

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// taker is a call that takes a lock, without a goroutine of its own.
type taker struct {
	LockTake
	call  Call
	done  chan struct{}
	asked int64 // database time, for tests that note it
}

// submit asks for a lock. The answer comes later.
func submit(t *testing.T, d *DB, r LockRequest) *taker {
	t.Helper()
	w := &taker{LockTake: LockTake{LockRequest: r}, done: make(chan struct{})}
	w.call = Call{Op: &w.LockTake, Done: func(*Call) { close(w.done) }}
	if err := d.Submit(&w.call); err != nil {
		t.Fatal(err)
	}
	return w
}

// answer waits for the answer.
func (w *taker) answer(t *testing.T) (token int64, err error) {
	t.Helper()
	soon(t, fmt.Sprintf("the answer to %+v", w.LockRequest), w.done)
	return w.Holder.Token, w.call.Err
}

// submitMany has n callers wait for the door, each without an id.
func submitMany(t *testing.T, d *DB, n int, r LockRequest) (all []*taker) {
	t.Helper()
	r.Key, r.Dur, r.Wait = door, time.Hour, time.Hour
	for range n {
		all = append(all, submit(t, d, r))
	}
	awaitQueue(t, d, door, n)
	return all
}

func wantGranted(t *testing.T, all []*taker) {
	t.Helper()
	last := int64(0)
	for i, w := range all {
		token, err := w.answer(t)
		if err != nil || token <= last {
			t.Fatalf("caller %d of %d: token %d after %d, %v", i, len(all), token, last, err)
		}
		last = token
	}
}

// roomy returns options with which hundreds of holders fit into a segment of the log, but not
// into the allocated slots.
func roomy(fs *memdisk.FS, clock *testClock) Options {
	o := tiny(fs, clock)
	o.Segment, o.CheckpointEvery = 1<<20, 1<<20
	return o
}

func TestOneUnlockLetsInAllReadersInOneCommit(t *testing.T) {
	for _, how := range []string{"unlock", "expiry", "force"} {
		clock := newTestClock()
		d := mustOpen(t, roomy(memdisk.New(), clock))
		token := hold(t, d, "writer", time.Minute)
		readers := submitMany(t, d, 300, LockRequest{Shared: true})
		commits := d.Stats().Commits
		switch how {
		case "unlock":
			unlock(t, d, token)
		case "force":
			wantDone(t, "unlocking by force", d.Unlock(UnlockRequest{Key: door, Force: true}))
		case "expiry":
			clock.pass(time.Minute)
			d.writer.Wake()
		}
		wantGranted(t, readers)
		if n := d.Stats().Commits - commits; n != 1 {
			t.Errorf("%s: letting in %d readers took %d commits", how, len(readers), n)
		}
		all, err := d.LockHolders(door, 0)
		if err != nil || len(all.Holders) != MaxListed || d.Stats().Locks.Holders != len(readers) {
			t.Errorf("%s: %d holders are listed, %d counted, %v", how, len(all.Holders), d.Stats().Locks.Holders, err)
		}
		mustClose(t, d)
	}
}

// A batch never becomes larger than a segment of the log, however many callers wait.
func TestMoreReadersThanASegmentHoldsAreLetIn(t *testing.T) {
	for _, how := range []string{"unlock", "expiry"} {
		clock := newTestClock()
		d := mustOpen(t, tiny(memdisk.New(), clock))
		token := hold(t, d, "writer", time.Minute)
		readers := submitMany(t, d, 300, LockRequest{Shared: true})
		if how == "unlock" {
			unlock(t, d, token)
		} else {
			clock.pass(time.Minute)
			d.writer.Wake()
		}
		wantGranted(t, readers)
		mustClose(t, d)
	}
}

// On a disk without room for more holders an unlock is done, and the first waiter gets its
// slot. The other waiters are told that the disk is full, and they do not hold up other locks.
func TestUnlockOnAFullDiskLetsInAsManyAsThereIsRoomFor(t *testing.T) {
	for _, how := range []string{"unlock", "expiry", "leave"} {
		fs, clock := memdisk.New(), newTestClock()
		o := roomy(fs, clock)
		d := mustOpen(t, o)
		token := hold(t, d, "writer", time.Minute)
		other := submit(t, d, LockRequest{Key: Key{"a", "back"}, Dur: 2 * time.Minute})
		if _, err := other.answer(t); err != nil {
			t.Fatal(err)
		}
		next := submit(t, d, LockRequest{Key: Key{"a", "back"}, Dur: time.Hour, Wait: time.Hour})
		want := 3
		var first *taker
		if how == "leave" {
			// Readers hold the door, and a writer that leaves holds up others.
			unlock(t, d, token)
			if _, err := submit(t, d, LockRequest{Key: door, Shared: true, Dur: time.Hour}).answer(t); err != nil {
				t.Fatal(err)
			}
			first = submit(t, d, LockRequest{Key: door, Dur: time.Hour, Wait: time.Hour})
		}
		var readers []*taker
		for range want {
			readers = append(readers, submit(t, d, LockRequest{Key: door, Shared: true, Dur: time.Hour, Wait: time.Hour}))
		}
		fs.Fail(func(op memdisk.Op) error {
			if op.Kind == memdisk.Allocate && strings.Contains(op.Name, "slots-") {
				return syscall.ENOSPC
			}
			return nil
		})
		for i := 0; !errors.Is(addN(d, idLike(door, i), 1), ErrFull); i++ {
		}
		switch how {
		case "unlock":
			unlock(t, d, token)
		case "expiry":
			clock.pass(time.Minute)
			d.writer.Wake()
		case "leave":
			wantDone(t, "leaving", d.Do(&LockLeave{Take: &first.LockTake, Err: errors.New("gone")}))
		}
		for i, w := range readers {
			_, err := w.answer(t)
			if i == 0 && how != "leave" {
				wantDone(t, how+": the first reader", err)
			} else {
				wantFull(t, d, fmt.Sprint(how, ": reader ", i), err)
			}
		}
		// Another lock expires as usual.
		clock.pass(2 * time.Minute)
		d.writer.Wake()
		if _, err := next.answer(t); err != nil {
			t.Errorf("%s: another lock is not handed over: %v", how, err)
		}
		fs.Fail(nil)
		mustClose(t, d)
	}
}
