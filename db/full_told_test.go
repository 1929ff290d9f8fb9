package db

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// On a small full disk there can be dozens of checkpoints a second, and each of them
// tries again what the disk has no room for.
func TestAFullDiskIsToldOnceAMinute(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tinyKV(fs, clock.read)
	said := lines(&o)
	d := mustOpen(t, o)
	fs.Fail(func(op memdisk.Op) error {
		if strings.Contains(op.Name, "/names/") || strings.Contains(op.Name, "/index") {
			return syscall.ENOSPC
		}
		return nil
	})
	told := func(want int) {
		t.Helper()
		for i := range 20 {
			wantDone(t, "an add", addN(d, fmt.Sprint(want, " ", i), 1))
			for range 100 { // a snapshot of the index is due after some segments
				_, err := d.Set(SetRequest{Key: Key{"a", "v"}, Data: make([]byte, 4000), Check: AnyVersion})
				wantDone(t, "a value", err)
			}
			wantDone(t, "a checkpoint", d.store.Checkpoint())
		}
		for _, what := range []string{"the index of names is not saved", "index snapshot not written"} {
			if n := strings.Count(said.String(), what); n != want {
				t.Errorf("%q is in the log %d times, want %d", what, n, want)
			}
		}
	}
	told(1)
	clock.pass(time.Minute)
	told(2)
	fs.Fail(nil)
	mustClose(t, d)
}

func TestADiskTooSmallForANewDirectorySaysWhatToSet(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	o.Segment = 4 << 20
	fs.SetRoom(fs.Used() + 1<<20)
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "more than the 4 MiB of a log segment") || !strings.Contains(err.Error(), "log.segment") {
		t.Errorf("a disk of 1 MiB and segments of 4 MiB: %v", err)
	}
	o.Segment = 256 << 10
	mustClose(t, mustOpen(t, o))
}
