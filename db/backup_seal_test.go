package db

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// TestBackupOfALogThatEndsWithASeal has the disk be full just after a segment is sealed. The
// last batch of the log is the seal then, which nobody applies: a backup does not wait for it.
func TestBackupOfALogThatEndsWithASeal(t *testing.T) {
	t.Parallel()
	fs := memdisk.New()
	const firstBatch = 4096 // offset in a segment
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Write && op.Off >= firstBatch && strings.HasSuffix(op.Name, ".seg") && !strings.HasSuffix(op.Name, "00000001.seg") {
			return syscall.ENOSPC
		}
		return nil
	})
	o := tiny(fs, newTestClock())
	d := mustOpen(t, o)
	done := int64(0)
	for err := error(nil); err == nil; {
		if err = addN(d, "n", 1); err == nil {
			done++
		} else if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if end, applied := d.store.Log.Durable(), d.writer.Position().Log; !end.StartsSegment() || end.Seq != applied.Seq+1 {
		t.Fatalf("the log ends at %+v, and %+v is applied: there is no seal at its end", end, applied)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var b bytes.Buffer
	if _, err := d.Backup(ctx, &b, "test"); err != nil {
		t.Fatalf("a backup of a log that ends with a seal: %v", err)
	}
	restored, m := verified(t, b.Bytes(), small(t))
	if n, err := restored.Counter(Key{"a", "n"}); n != done || err != nil {
		t.Errorf("the copy has %d of %d writes, %v", n, done, err)
	}
	if err := addN(restored, "n", 1); err != nil {
		t.Errorf("a write to the copy, whose log ends at %d/%d: %v", m.Segment, m.Offset, err)
	}
	mustClose(t, restored)

	fs.Fail(nil)
	if err := addN(d, "n", 1); err != nil {
		t.Fatal(err)
	}
	if end := d.store.Log.Durable(); end.StartsSegment() {
		t.Errorf("behind a batch the log ends at %+v", end)
	}
	mustClose(t, d)
}
