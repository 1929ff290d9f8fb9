package db

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk/memdisk"
)

// lines is a log that a test reads.
func lines(o *Options) *strings.Builder {
	var b strings.Builder
	o.Log = slog.New(slog.NewTextHandler(&b, nil))
	return &b
}

const saidRebuilt = "the index is rebuilt from the log"

func fillSegments(t *testing.T, d *DB, segments int) {
	t.Helper()
	for end := d.log.Stats().Appended + uint64(segments)*uint64(d.segment); d.log.Stats().Appended < end; {
		if _, err := d.Set(SetRequest{Key: Key{"1", fmt.Sprint(d.log.Stats().Appended % 7)}, Data: make([]byte, 1000), Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.growLog(); err != nil { // the next segment comes before a snapshot
		t.Fatal(err)
	}
	if err := d.checkpoint(); err != nil {
		t.Fatal(err)
	}
}

func TestTheIndexIsRebuiltOnlyWithoutASnapshotAndThatIsSaid(t *testing.T) {
	o := tinyKV(memdisk.New(), nil)
	said := lines(&o)
	d := mustOpen(t, o)
	fillSegments(t, d, 2)
	mustClose(t, d)
	d = mustOpen(t, o)
	mustClose(t, d)
	if strings.Contains(said.String(), saidRebuilt) {
		t.Errorf("a new directory, then a clean stop: %s", said)
	}
	dropIndex(o.FS.(*memdisk.FS))
	d = mustOpen(t, o)
	if !strings.Contains(said.String(), saidRebuilt) || !strings.Contains(said.String(), "why=") {
		t.Errorf("without a snapshot: %s", said)
	}
	mustClose(t, d)
}

// Also without a clean stop a start reads little of the log: snapshots come as
// the log grows, but not with every checkpoint.
func TestSnapshotsComeAsTheLogGrows(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	d := mustOpen(t, o)
	saved := func() (n int) {
		for _, op := range fs.Journal() {
			if op.Kind == memdisk.Rename && strings.HasSuffix(op.Name, "index.tmp") {
				n++
			}
		}
		return n
	}
	fillSegments(t, d, 1) // the first, since there is none
	first := saved()
	for range 20 {
		if err := d.checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	if first != 1 || saved() != 1 {
		t.Errorf("%d snapshots at first, %d after more checkpoints; want 1", first, saved())
	}
	fillSegments(t, d, 12)
	if n := saved(); n < 2 || n > 4 {
		t.Errorf("%d snapshots after 12 segments, want one for every %d at least", n, snapshotSegments)
	}
	fs.Freeze()
	o.FS = fs.Cut(fs.Len()).Nothing()
	_ = d.Close() // on a dead disk
	said := lines(&o)
	d = mustOpen(t, o)
	if strings.Contains(said.String(), saidRebuilt) && !strings.Contains(said.String(), "is freed") {
		t.Errorf("after a power cut: %s", said)
	}
	mustClose(t, d)
}

// The snapshot is a cache: that it cannot be written stops nothing.
func TestASnapshotThatCannotBeWrittenIsLeftOut(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		for _, kind := range []memdisk.Kind{memdisk.Create, memdisk.Write, memdisk.Sync, memdisk.Rename} {
			fs := memdisk.New()
			o := tinyKV(fs, nil)
			said := lines(&o)
			d := mustOpen(t, o)
			fillSegments(t, d, 1)
			fs.Fail(func(op memdisk.Op) error {
				if op.Kind == kind && strings.HasSuffix(op.Name, "index.tmp") {
					return fault
				}
				return nil
			})
			fillSegments(t, d, 10)
			mustClose(t, d)
			fs.Fail(nil)
			if !strings.Contains(said.String(), "the index is not saved") {
				t.Errorf("%v at %v: %s", fault, kind, said)
			}
			if n := fs.OpenHandles(); n > 0 || kind != memdisk.Rename && slices.Contains(fs.Files(), "data/index.tmp") {
				t.Errorf("%v at %v: %d handles are open, files %v", fault, kind, n, fs.Files())
			}
			d = mustOpen(t, o)
			fillSegments(t, d, 1)
			for i := range 7 {
				if _, err := d.Get(Key{"1", fmt.Sprint(i)}); err != nil {
					t.Errorf("%v at %v: %v", fault, kind, err)
				}
			}
			mustClose(t, d)
		}
	}
}
