package db

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// If fencing tokens run out because the disk is slow, a mutex is refused with an error that
// says so, not with that of a full disk. Once the disk has caught up, it is granted.
func TestTokensThatRunOutOnASlowDiskAreNoFullDisk(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	defer mustClose(t, d)
	begun, resume := make(chan struct{}, 1), make(chan struct{})
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync && strings.HasSuffix(op.Name, ".seg") {
			select {
			case begun <- struct{}{}:
			default:
			}
			<-resume
		}
		return nil
	})
	lock := func(id string) error {
		_, err := d.LockMutex(t.Context(), LockRequest{Key: Key{"a", id}, Dur: time.Minute})
		return err
	}
	d.tokens.Skip(2)
	wantDone(t, "the last token", lock("last"))
	<-begun
	if err := lock("next"); err != ErrTokens {
		t.Errorf("with the disk slow: %v, want ErrTokens", err)
	}
	close(resume)
	for d.reserving.Load() {
		runtime.Gosched()
	}
	wantDone(t, "with the disk good again", lock("next"))
}

// On a full disk they run out too, and the error says so.
func TestTokensThatRunOutOnAFullDiskSaySo(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	defer mustClose(t, d)
	fs.SetRoom(0)
	for !d.noTokens.Load() { // fills the log
		d.reserveTokens()
		for d.reserving.Load() {
			runtime.Gosched()
		}
	}
	d.tokens.Skip(0)
	lock := func() error {
		_, err := d.LockMutex(t.Context(), LockRequest{Key: Key{"a", "m"}, Dur: time.Minute})
		return err
	}
	if err := lock(); err == nil {
		t.Error("a mutex is granted without a token for it")
	}
	for d.reserving.Load() {
		runtime.Gosched()
	}
	if err := lock(); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}
