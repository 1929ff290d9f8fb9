package commit_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/test/memdisk"
)

// fullLog makes every write of a batch find the disk full, until the returned value is
// set to false. tried gets a token for each.
func fullLog(fs *memdisk.FS) (full *atomic.Bool, tried chan struct{}) {
	full, tried = new(atomic.Bool), make(chan struct{}, 1)
	full.Store(true)
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind != memdisk.Write || !strings.HasSuffix(op.Name, ".seg") || !full.Load() {
			return nil
		}
		select {
		case tried <- struct{}{}:
		default:
		}
		return syscall.ENOSPC
	})
	return full, tried
}

func TestABatchThatFindsTheDiskFullIsUndone(t *testing.T) {
	r := newRig(t, 64<<10, commit.Options{})
	wantDone(t, "an operation", r.Do(add("old", 1)))
	full, _ := fullLog(r.fs)
	for range 3 {
		for _, id := range []string{"old", "new"} {
			if err := r.Do(add(id, 1)); !errors.Is(err, commit.ErrFull) || r.Err() != nil {
				t.Fatalf("an operation: %v, and writes: %v, want ErrFull", err, r.Err())
			}
		}
	}
	full.Store(false)
	wantDone(t, "an operation with room", r.Do(add("old", 1)))
	wantDone(t, "an operation with room", r.Do(add("new", 1)))
	for id, want := range map[string]int64{"old": 2, "new": 1} {
		if n, ok := r.number(id); n != want || !ok {
			t.Errorf("%s is %d, want %d", id, n, want)
		}
	}
	r.close(t)
}

// An expiry that finds the disk full is decided again, and an operation that needs no room
// does not wait for it.
func TestAnEndThatFindsTheDiskFullIsTriedAgain(t *testing.T) {
	written := make(chan struct{}, 100)
	r := newRig(t, 64<<10, commit.Options{Batch: func(commit.Batch) { written <- struct{}{} }})
	wantDone(t, "an operation", r.Do(add("old", 1)))
	<-written
	full, tried := fullLog(r.fs)
	r.alarm.set(1)
	r.pass(time.Second)
	r.Wake()
	soon(t, "an end that finds the disk full", tried)
	seen := int64(0)
	wantDone(t, "an operation that needs no room", r.Do(looks(func(tx *commit.Tx) error {
		seen = get(tx, "old")
		return nil
	})))
	if seen != 1 {
		t.Errorf("it sees %d, want 1", seen)
	}
	soon(t, "the next try", tried)
	full.Store(false)
	soon(t, "the batch of the end", written)
	if n, _ := r.number("alarm"); n != 1 {
		t.Errorf("it has ended %d times, want once", n)
	}
	r.close(t)
}

// looks is an operation that changes nothing.
type looks func(tx *commit.Tx) error

func (looks) Size() int                    { return 0 }
func (looks) Frees() bool                  { return true }
func (f looks) Decide(tx *commit.Tx) error { return f(tx) }

// sly is an operation that adds more to the log than its Size says.
type sly struct{ large }

func (*sly) Size() int { return 100 }

// An operation that turns out to need more than it said does not make the batch larger
// than the log has room for.
func TestAnOperationThatNeedsMoreThanItSaidWaitsForRoom(t *testing.T) {
	r := newRig(t, 64<<10, commit.Options{})
	first, firstDone := call(&large{data: make([]byte, 40<<10)})
	second, secondDone := call(&sly{large{data: make([]byte, 50<<10)}})
	if err := r.Submit(first, second); err != nil {
		t.Fatal(err)
	}
	soon(t, "an operation", firstDone)
	soon(t, "one that needs more than it said", secondDone)
	for _, err := range []error{first.Err, second.Err, r.Err()} {
		wantDone(t, "two operations that do not fit into one batch", err)
	}
	r.close(t)
}
