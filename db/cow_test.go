package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// shared is a copy-on-write disk whose blocks a snapshot shares. While it is full, existing
// data cannot be overwritten in files whose names contain one of the given names.
type shared struct {
	full atomic.Bool
	of   func(op memdisk.Op) bool
}

func share(fs *memdisk.FS, of func(op memdisk.Op) bool) *shared {
	s := &shared{of: of}
	s.fill(fs)
	return s
}

// fill makes the disk full. From here on other goroutines call s.of.
func (s *shared) fill(fs *memdisk.FS) {
	s.full.Store(true)
	fs.Fail(func(op memdisk.Op) error {
		if s.full.Load() && s.of(op) {
			return syscall.ENOSPC
		}
		return nil
	})
}

func isBatch(op memdisk.Op) bool {
	return op.Kind == memdisk.Write && strings.HasSuffix(op.Name, ".seg")
}

func isStore(op memdisk.Op) bool { return op.Kind == memdisk.Store }

func isCheckpoint(op memdisk.Op) bool {
	return op.Kind == memdisk.Write && strings.HasSuffix(op.Name, "CHECKPOINT")
}

// anyOverwrite matches every write, every store to a mapping and every allocation.
func anyOverwrite(op memdisk.Op) bool {
	return op.Kind == memdisk.Write || op.Kind == memdisk.Store || op.Kind == memdisk.Allocate
}

func TestABatchThatFindsTheDiskFullChangesNothing(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	ctx := context.Background()
	value := func(data string) (int64, error) {
		return d.Set(SetRequest{Key: Key{"a", "v"}, Data: []byte(data), Check: AnyVersion})
	}
	first, err := value("one")
	wantDone(t, "a value", err)
	wantDone(t, "a counter", addN(d, "n", 5))
	held := LockRequest{Key: Key{"a", "l"}, Owner: "me", Dur: time.Hour}
	token, err := d.Lock(ctx, held)
	wantDone(t, "a lock", err)
	next := make(chan error, 1)
	var granted int64
	go func() {
		var err error
		granted, err = d.Lock(ctx, LockRequest{Key: held.Key, Owner: "next", Dur: time.Hour, Wait: time.Hour})
		next <- err
	}()
	for h, err := d.LockHolder(held.Key); h.Waiters == 0; h, err = d.LockHolder(held.Key) {
		wantDone(t, "a look at the lock", err)
	}

	s := share(fs, isBatch)
	for range 3 {
		_, err = value("two")
		wantFull(t, d, "a value", err)
		wantFull(t, d, "a counter", addN(d, "n", 1))
		wantFull(t, d, "a new counter", addN(d, "new", 1))
		_, err = d.AddSequence(Key{"a", "s"}, 1)
		wantFull(t, d, "a sequence", err)
		wantFull(t, d, "an unlock", d.Unlock(UnlockRequest{Key: held.Key, Token: token}))
		wantFull(t, d, "a delete", d.DeleteValue(Key{"a", "v"}, AnyVersion))
		if n, err := d.Counter(Key{"a", "n"}); n != 5 || err != nil {
			t.Fatalf("the counter is %d, %v, want 5", n, err)
		}
		if _, err := d.Counter(Key{"a", "new"}); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a counter that was refused: %v, want ErrNotFound", err)
		}
		if h, err := d.LockHolder(held.Key); h.Token != token || h.Waiters != 1 || err != nil {
			t.Fatalf("the lock is %+v, %v, want token %d and one waiter", h, err, token)
		}
	}
	s.full.Store(false)
	second, err := value("three")
	wantDone(t, "a value with room", err)
	if second != first+1 {
		t.Errorf("version %d follows %d", second, first)
	}
	wantDone(t, "a counter with room", addN(d, "n", 1))
	wantDone(t, "an unlock with room", d.Unlock(UnlockRequest{Key: held.Key, Token: token}))
	wantDone(t, "the waiter", <-next)
	if granted <= token {
		t.Errorf("token %d follows %d", granted, token)
	}
	mustClose(t, d)
	d = mustOpen(t, o)
	if n, err := d.Counter(Key{"a", "n"}); n != 6 || err != nil {
		t.Errorf("after a restart the counter is %d, %v, want 6", n, err)
	}
	mustClose(t, d)
}

// The log's reserve is used when overwriting needs room.
func TestTheReserveIsGivenToBatches(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	wantDone(t, "a counter", addN(d, "n", 1))
	awaitPrepared(d)
	var s shared
	s.of = func(op memdisk.Op) bool {
		if op.Kind == memdisk.Remove && strings.HasSuffix(op.Name, "reserve") {
			s.full.Store(false)
		}
		return isBatch(op)
	}
	s.fill(fs)
	wantDone(t, "a counter that needs the reserve", addN(d, "n", 1))
	mustClose(t, d)
}

// A delete is done even if a value in the same batch lacks room.
func TestADeleteGoesOnWithoutTheRestOfItsBatch(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	wantDone(t, "a counter", addN(d, "n", 1))
	share(fs, func(op memdisk.Op) bool { return isBatch(op) && op.Len > 500 })
	add := &CounterAdd{Key: Key{"a", long(1)}, Add: 1, Max: 10}
	reset := &NumberReset{Counter: true, Key: Key{"a", "n"}}
	answers := make(chan error, 2)
	calls := [2]Call{{Op: add, Done: func(c *Call) { answers <- nil }}, {Op: reset, Done: func(c *Call) { answers <- nil }}}
	wantDone(t, "submit", d.Submit(&calls[0], &calls[1]))
	<-answers
	<-answers
	wantFull(t, d, "a counter", calls[0].Err)
	wantDone(t, "a delete", calls[1].Err)
	mustClose(t, d)
}

// The expiry of a hold that finds no room is tried again.
func TestAnEndThatFindsTheDiskFullComesLater(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	ctx := context.Background()
	_, err := d.Lock(ctx, LockRequest{Key: Key{"a", "l"}, Dur: time.Second})
	wantDone(t, "a lock", err)
	next := make(chan error, 1)
	go func() {
		_, err := d.Lock(ctx, LockRequest{Key: Key{"a", "l"}, Dur: time.Hour, Wait: time.Hour})
		next <- err
	}()
	for h, err := d.LockHolder(Key{"a", "l"}); h.Waiters == 0; h, err = d.LockHolder(Key{"a", "l"}) {
		wantDone(t, "a look at the lock", err)
	}
	tried := make(chan struct{}, 1)
	s := share(fs, func(op memdisk.Op) bool {
		if isBatch(op) {
			select {
			case tried <- struct{}{}:
			default:
			}
		}
		return isBatch(op)
	})
	clock.pass(2 * time.Second)
	d.writer.Wake()
	<-tried
	<-tried
	s.full.Store(false)
	wantDone(t, "the waiter", <-next)
	mustClose(t, d)
}

func wantCounters(t *testing.T, d *DB, want map[string]int64) {
	t.Helper()
	for id, n := range want {
		if got, err := d.Counter(Key{"a", id}); got != n || err != nil {
			t.Fatalf("counter %.10q is %d, %v, want %d", id, got, err, n)
		}
	}
}

func TestSlotsWithoutRoomAreKeptUntilThereIsSome(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	want := make(map[string]int64)
	add := func(id string) {
		t.Helper()
		wantDone(t, "a counter", addN(d, id, 1))
		want[id]++
	}
	add("old")
	add(long(1))
	s := share(fs, isStore)
	for i := range 5 {
		add("old")
		add(long(1))
		add(fmt.Sprint("new ", i))
	}
	wantDone(t, "a delete", d.ResetCounter(Key{"a", "new 0"}))
	delete(want, "new 0")
	wantCounters(t, d, want)
	if err := d.store.Checkpoint(); !errors.Is(err, syscall.ENOSPC) || d.Err() != nil {
		t.Fatalf("a checkpoint without room: %v, and writes: %v", err, d.Err())
	}
	wantCounters(t, d, want)
	// Every state after a power cut has all of it.
	cut := fs.Cut(fs.Len()).Nothing()
	o2 := o
	o2.FS = cut
	d2 := mustOpen(t, o2)
	wantCounters(t, d2, want)
	mustClose(t, d2)

	mustClose(t, d) // without a checkpoint
	d = mustOpen(t, o)
	wantCounters(t, d, want)
	add("old")
	s.full.Store(false)
	wantDone(t, "a checkpoint with room", d.store.Checkpoint())
	wantCounters(t, d, want)
	o2.FS = fs.Cut(fs.Len()).Nothing()
	d2 = mustOpen(t, o2)
	wantCounters(t, d2, want)
	mustClose(t, d2)
	mustClose(t, d)
}

// A page that cannot be stored for another reason means a failed disk.
func TestASlotThatCannotBeStoredStopsWrites(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	fs.Fail(func(op memdisk.Op) error {
		if isStore(op) {
			return syscall.EIO
		}
		return nil
	})
	if err := addN(d, "n", 1); !errors.Is(err, ErrUnknown) || d.Err() == nil {
		t.Errorf("got %v, and writes: %v, want that they are stopped", err, d.Err())
	}
	if err := d.Close(); err == nil {
		t.Error("Close says nothing of the failure")
	}
}

func TestACheckpointWithoutRoomIsPutOff(t *testing.T) {
	for _, written := range []int64{0, 100} {
		fs, clock := memdisk.New(), newTestClock()
		o := tiny(fs, clock)
		d := mustOpen(t, o)
		var full atomic.Bool
		full.Store(true)
		fs.Fail(func(op memdisk.Op) error {
			if full.Load() && isCheckpoint(op) {
				return memdisk.Short(written, syscall.ENOSPC)
			}
			return nil
		})
		want := make(map[string]int64)
		for i := range 3 {
			wantDone(t, "a counter", addN(d, "n", 1))
			want["n"]++
			if err := d.store.Checkpoint(); !errors.Is(err, syscall.ENOSPC) || d.Err() != nil {
				t.Fatalf("checkpoint %d without room: %v, and writes: %v", i, err, d.Err())
			}
		}
		o2 := o
		o2.FS = fs.Cut(fs.Len()).Nothing()
		d2 := mustOpen(t, o2)
		wantCounters(t, d2, want)
		mustClose(t, d2)
		full.Store(false)
		wantDone(t, "a checkpoint with room", d.store.Checkpoint())
		full.Store(true)
		wantDone(t, "a counter", addN(d, "n", 1))
		want["n"]++
		mustClose(t, d) // without a checkpoint
		d = mustOpen(t, o)
		wantCounters(t, d, want)
		last := int64(0)
		for i := range 3 {
			token, err := d.Lock(context.Background(), LockRequest{Key: Key{"a", fmt.Sprint(i)}, Dur: time.Hour})
			wantDone(t, "a lock, whose token no checkpoint covers", err)
			if token <= last {
				t.Errorf("token %d follows %d", token, last)
			}
			last = token
			fs.Fail(nil)
			o.FS = fs.Reopen() // the process was killed
			o.FS.(*memdisk.FS).Fail(func(op memdisk.Op) error {
				if isCheckpoint(op) {
					return syscall.ENOSPC
				}
				return nil
			})
			d = mustOpen(t, o)
			fs = o.FS.(*memdisk.FS)
		}
		mustClose(t, d)
	}
}

// A directory that shares all its blocks starts on a full disk.
func TestAStartThatCanOverwriteNothingServes(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	want := map[string]int64{"a": 3, long(1): 3}
	for range 3 {
		for id := range want {
			wantDone(t, "a counter", addN(d, id, 1))
		}
	}
	token, err := d.Lock(context.Background(), LockRequest{Key: Key{"a", "l"}, Dur: time.Hour})
	wantDone(t, "a lock", err)
	fs = fs.Reopen() // the process was killed
	o.FS = fs
	s := share(fs, anyOverwrite)
	for range 2 {
		d = mustOpen(t, o)
		wantCounters(t, d, want)
		wantFull(t, d, "a counter", addN(d, "a", 1))
		wantFull(t, d, "an unlock", d.Unlock(UnlockRequest{Key: Key{"a", "l"}, Token: token}))
		if h, err := d.LockHolder(Key{"a", "l"}); err != nil || h.Token != token {
			t.Errorf("the lock is %+v, %v", h, err)
		}
		mustClose(t, d)
	}
	d = mustOpen(t, o)
	s.full.Store(false)
	wantDone(t, "a counter with room", addN(d, "a", 1))
	want["a"]++
	wantDone(t, "a checkpoint with room", d.store.Checkpoint())
	o2 := o
	o2.FS = fs.Cut(fs.Len()).Nothing()
	d2 := mustOpen(t, o2)
	wantCounters(t, d2, want)
	if next, err := d2.Lock(context.Background(), LockRequest{Key: Key{"a", "other"}, Dur: time.Hour}); err != nil || next <= token {
		t.Errorf("token %d follows %d, %v", next, token, err)
	}
	mustClose(t, d2)
	mustClose(t, d)
}
