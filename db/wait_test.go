package db

import (
	"context"
	"errors"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// A wait that timed out before the hold ended is refused with 409, even if the writer notices
// both at once.
func TestWaitThatEndedBeforeTheHoldIsNoFullDisk(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	defer mustClose(t, d)
	k := Key{"1", "a"}
	if _, err := d.Lock(context.Background(), LockRequest{Key: k, Dur: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error)
	go func() {
		_, err := d.Lock(context.Background(), LockRequest{Key: k, Dur: time.Second, Wait: time.Second})
		answer <- err
	}()
	awaitQueue(t, d, k, 1)
	clock.pass(3 * time.Second)
	d.writer.Wake()
	var held *HeldError
	if err := <-answer; !errors.As(err, &held) {
		t.Errorf("got %v, want a *HeldError", err)
	}
	if _, err := d.LockHolder(k); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is held on: %v", err)
	}
}
