package db

import (
	"context"
	"errors"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// A caller whom the writer has sent back for room may find the files closed
// meanwhile: that is the shutdown, and no failed disk.
func TestRoomIsNotMadeInFilesThatAreClosed(t *testing.T) {
	for _, why := range []error{errNeedLog, needSlot[0], needSlot[3]} {
		d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
		mustClose(t, d)
		o := newOp(verbAdd, kindCounter, Key{"a", "late"})
		o.err, o.capacity = why, d.tables.Capacity(0)+d.tables.Capacity(3)
		if err := d.roomFor(o); !errors.Is(err, ErrStopping) || d.Err() != nil {
			t.Errorf("%v: the answer is %v, writes are stopped since %v", why, err, d.Err())
		}
	}
}

// Close waits for whoever makes room, and lets nobody else begin.
func TestCloseWaitsUntilRoomIsMade(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	if !d.useFiles() {
		t.Fatal("the files cannot be used")
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	<-d.closing
	if d.useFiles() {
		t.Error("the files can be used during Close")
	}
	select {
	case err := <-closed:
		t.Fatalf("it is closed while room is made: %v", err)
	case <-time.After(20 * time.Millisecond): // a Close that does not wait takes one
	}
	wantDone(t, "making room", d.growTable(3, d.tables.Capacity(3)))
	d.background.Done()
	wantDone(t, "close", <-closed)
}

func TestAMutexThatGetsNoTokenInAShutdownSaysSo(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	mustClose(t, d)
	for range 2 {
		if _, err := d.mutexes.Lock(context.Background(), LockRequest{Key: door, Dur: time.Hour}); !errors.Is(err, ErrStopping) {
			t.Errorf("the answer is %v, want %v", err, ErrStopping)
		}
	}
}
