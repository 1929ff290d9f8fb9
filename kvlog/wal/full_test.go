package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// fullAfter makes the next write to a segment write n bytes and then find the disk full,
// and the next more writes after that find it full at once.
func fullAfter(n int64, more int) func(memdisk.Op) error {
	writes := 0
	return func(op memdisk.Op) error {
		if op.Kind != memdisk.Write || !strings.HasSuffix(op.Name, ".seg") {
			return nil
		}
		if writes++; writes == 1 {
			return memdisk.Short(n, syscall.ENOSPC)
		} else if writes <= 1+more {
			return syscall.ENOSPC
		}
		return nil
	}
}

// wantNever restarts the log after a power cut at any instant, and checks that a record is
// not there from the mark "refused" on.
func wantNever(t *testing.T, fs *memdisk.FS, from Pos, record string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 1))
	states := 0
	for cut := range fs.Cuts() {
		if !slices.Contains(cut.Marks(), any("refused")) {
			continue
		}
		for _, state := range crashStates(cut, rnd, 40) {
			_, r, err := restart(testOptions(state), from, nil)
			if err != nil {
				t.Fatalf("at %v: %v", cut.Last(), err)
			}
			for _, got := range r.got {
				if got == record {
					t.Fatalf("at %v: a refused batch is there", cut.Last())
				}
			}
			states++
		}
	}
	if _, r := mustRestart(t, testOptions(fs.Reopen()), from); slices.Contains(r.got, record) {
		t.Error("after a restart a refused batch is there")
	}
	if states == 0 {
		t.Fatal("no state was tried")
	}
}

func TestABatchThatFindsTheDiskFullIsNotThere(t *testing.T) {
	// If a batch ends with zeros, a part of it can already be the complete batch.
	for _, end := range []string{strings.Repeat("x", 1400), strings.Repeat("\x00", 1400)} {
		for _, written := range []int64{0, 40, 100, 600, 1024} {
			t.Run(fmt.Sprintf("%q and %d bytes", end[:1], written), func(t *testing.T) {
				fs := memdisk.New()
				l, from := newLog(t, testOptions(fs))
				appendAll(t, l, "before")
				fs.Fail(fullAfter(written, 0))
				refused := "refused" + end
				if _, err := l.Append(batchOf(refused)); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("got %v, want ErrFull with the cause", err)
				}
				fs.Mark("refused")
				// The next batch ends with the same bytes, and goes to the same place.
				appendAll(t, l, "another"+end, "more")
				if _, r := mustRestart(t, testOptions(fs.Reopen()), from); len(r.got) != 3 {
					t.Errorf("recovered %d records, want 3", len(r.got))
				}
				wantNever(t, fs, from, "1:"+refused)
			})
		}
	}
}

// The zeros over a part of a batch may find no room either.
func TestABatchThatCannotBeClearedIsNotThere(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	appendAll(t, l, "before")
	fs.Fail(fullAfter(512, 2))
	end := strings.Repeat("x", 700)
	refused := "refused" + end
	for range 2 {
		if _, err := l.Append(batchOf(refused)); !errors.Is(err, ErrFull) {
			t.Fatalf("got %v, want ErrFull", err)
		}
		fs.Mark("refused")
	}
	appendAll(t, l, "another"+end, "more")
	wantNever(t, fs, from, "1:"+refused)
}

func TestAWholeBatchThatCannotBeClearedIsAFailedDisk(t *testing.T) {
	fs := memdisk.New()
	l, _ := newLog(t, testOptions(fs))
	fs.Fail(fullAfter(600, 1))
	if _, err := l.Append(batchOf("whole" + strings.Repeat("\x00", 1400))); !errors.Is(err, ErrFailed) || errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFailed", err)
	}
}

// The seal is written like any batch: if it finds no room, the batch after it is refused.
func TestASealThatFindsTheDiskFullIsTriedAgain(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	prepare(t, l)
	appendAll(t, l, strings.Repeat("x", l.Room(true)-batchHeader-recordHeader))
	fs.Fail(fullAfter(20, 0))
	if _, err := l.Append(batchOf("next")); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	appendAll(t, l, "next")
	if _, r := mustRestart(t, testOptions(fs.Reopen()), from); len(r.got) != 2 || !strings.HasSuffix(r.got[1], ":next") {
		t.Errorf("recovered %d records, want 2", len(r.got))
	}
}

// A failed sync is final, even if its error is that the disk is full.
func TestAFullDiskAtASyncIsAFailedDisk(t *testing.T) {
	fs := memdisk.New()
	l, _ := newLog(t, testOptions(fs))
	failed := false
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync && !failed {
			failed = true
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := l.Append(batchOf("lost?")); !errors.Is(err, ErrFailed) || errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFailed", err)
	}
}

// noRoomToOverwrite makes a disk on which no existing data can be overwritten.
func noRoomToOverwrite(op memdisk.Op) error {
	if op.Kind == memdisk.Write || op.Kind == memdisk.Allocate {
		return syscall.ENOSPC
	}
	return nil
}

func TestAFullDiskStartsIfItHasWhatCanBeRead(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	prepare(t, l)
	appendAll(t, l, "one", "two")
	// A torn tail.
	fs.Fail(fullAfter(100, 1))
	if _, err := l.Append(batchOf("refused" + strings.Repeat("x", 1400))); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	fs = fs.Reopen()
	fs.Fail(noRoomToOverwrite)
	l, r := mustRestart(t, testOptions(fs), from)
	if len(r.got) != 2 {
		t.Fatalf("recovered %q", r.got)
	}
	if _, err := l.Append(batchOf("refused")); !errors.Is(err, ErrFull) {
		t.Errorf("a batch on a full disk: %v, want ErrFull", err)
	}
	fs.Fail(nil)
	appendAll(t, l, "three")
	_, r = mustRestart(t, testOptions(fs.Reopen()), from)
	if len(r.got) != 3 || r.got[2] != "1:three" {
		t.Errorf("recovered %q, want three records", r.got)
	}
}

func TestAFullDiskDoesNotStartOnWhatItDoesNotHave(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	appendAll(t, l, "one")
	fs.Fail(failOnce(memdisk.Sync))
	if _, err := l.Append(batchOf("only in the page cache")); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	fs = fs.Reopen()
	fs.Fail(noRoomToOverwrite)
	if _, _, err := restart(testOptions(fs), from, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want that there is no room", err)
	}
	fs.Fail(nil)
	if _, r := mustRestart(t, testOptions(fs.Reopen()), from); len(r.got) != 2 {
		t.Errorf("recovered %q with room, want two records", r.got)
	}
}
