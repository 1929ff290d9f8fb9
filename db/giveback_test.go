package db

import (
	"context"
	"math/rand/v2"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// goneContext is the context of a caller that is found to be gone once it was granted something.
type goneContext struct{ context.Context }

func (goneContext) Gone() bool { return true }

// A caller that was told that it did not get a lock does not have it after a crash.
func TestLockIsGivenBackBeforeTheCallerIsTold(t *testing.T) {
	for range 20 {
		clock, fs, k := newTestClock(), memdisk.New(), Key{"acc", "id"}
		d := mustOpen(t, tiny(fs, clock))
		_, err := d.Lock(goneContext{t.Context()}, LockRequest{Key: k, Dur: far, Wait: far})
		if err == nil {
			t.Fatal("a caller that is gone was granted a lock")
		}
		after := fs.Crash(fs.Len(), rand.New(rand.NewPCG(1, 1)))
		mustClose(t, d)
		d = mustOpen(t, tiny(after, clock))
		read := LockRead{Key: k}
		if err := d.Do(&read); err != ErrNotFound {
			t.Fatalf("the lock is held after a crash: %+v, %v", read.Holders, err)
		}
		mustClose(t, d)
	}
}
