package db

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/db/store"
	"clouddragon/internal/test/memdisk"
)

// logBuffer is a log that a test reads while the database is open.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lines makes the options log to the buffer that it returns.
func lines(o *Options) *logBuffer {
	l := new(logBuffer)
	o.Log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

const saidRebuilt = "the index is rebuilt from the log"

func fillSegments(t *testing.T, d *DB, segments int) {
	t.Helper()
	for end := d.store.Log.Stats().Appended + uint64(segments)*uint64(d.store.SegmentSize()); d.store.Log.Stats().Appended < end; {
		if _, err := d.Set(SetRequest{Key: Key{"1", fmt.Sprint(d.store.Log.Stats().Appended % 7)}, Data: make([]byte, 1000), Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.store.PrepareSegment(); err != nil { // the next segment comes before a snapshot
		t.Fatal(err)
	}
	if err := d.store.Checkpoint(); err != nil {
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

// A start reads little of the log even without a clean stop: snapshots are written as the log
// grows, but not with every checkpoint.
func TestSnapshotsComeAsTheLogGrows(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	o.CompactRatio = 1e6 // otherwise the number of snapshots would depend on compaction, too
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
		if err := d.store.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	if first != 1 || saved() != 1 {
		t.Errorf("%d snapshots at first, %d after more checkpoints; want 1", first, saved())
	}
	fillSegments(t, d, 12)
	if n := saved(); n < 2 || n > 4 {
		t.Errorf("%d snapshots after 12 segments, want one for every %d at least", n, store.SnapshotSegments)
	}
	fs.Freeze()
	o.FS = fs.Cut(fs.Len()).Nothing()
	_ = d.Close() // on a dead disk
	said := lines(&o)
	d = mustOpen(t, o)
	if strings.Contains(said.String(), saidRebuilt) {
		t.Errorf("after a power cut: %s", said)
	}
	mustClose(t, d)
}

// After a crash, a start uses the snapshot even if compaction has freed the segment in which
// the snapshot ends. The resulting index is the same as one built from the whole log.
func TestASnapshotIsOfUseWithoutTheSegmentItEndsWith(t *testing.T) {
	for seed := range uint64(30) {
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.CompactRatio = 1e6 // only as it is told to
		d := mustOpen(t, o)
		rnd := rand.New(rand.NewPCG(seed, 0))
		want := make(map[string]string)
		change := func(n int) {
			for range n {
				id := fmt.Sprint(rnd.IntN(40))
				k := Key{"m", id}
				if rnd.IntN(3) == 0 {
					wantDone(t, "a deletion", d.DeleteValue(k, AnyVersion))
					delete(want, id)
					continue
				}
				want[id] = strings.Repeat(fmt.Sprint(rnd.Uint32()), 1+rnd.IntN(80))
				_, err := d.Set(SetRequest{Key: k, Data: []byte(want[id]), Check: AnyVersion})
				wantDone(t, "a value", err)
			}
		}
		change(60)
		fillSegments(t, d, 1)
		change(10)
		fillSegments(t, d, 0)
		at, _ := d.store.Snapshot()
		change(10)
		for d.store.Log.Segments()[len(d.store.Log.Segments())-1] < at.Segment+2 {
			change(1)
		}
		fillSegments(t, d, 0)
		first := d.store.Log.Segments()[0]
		if rnd.IntN(2) == 0 && first < at.Segment {
			d.store.CompactSegment(first)
		}
		if !d.store.CompactSegment(at.Segment) || slices.Contains(d.store.Log.Segments(), at.Segment) || snapshotAt(d) != at {
			t.Fatalf("seed %d: the snapshot ends at %v, segments are %v", seed, at, d.store.Log.Segments())
		}
		change(rnd.IntN(30))
		fs.Freeze()
		_ = d.Close() // on a dead disk
		for _, index := range []string{"with", "without"} {
			o.FS = fs.Cut(fs.Len()).Nothing()
			if index == "without" {
				dropIndex(o.FS.(*memdisk.FS))
			}
			said := lines(&o)
			d = mustOpen(t, o)
			if rebuilt := strings.Contains(said.String(), saidRebuilt); rebuilt != (index == "without") {
				t.Errorf("seed %d, %s the snapshot: %s", seed, index, said)
			}
			for n := range 40 {
				id := fmt.Sprint(n)
				v, err := d.Get(Key{"m", id})
				if data, there := want[id]; there && (err != nil || string(v.Data) != data) || !there && !errors.Is(err, ErrNotFound) {
					t.Errorf("seed %d, %s the snapshot: value %s is %q, %v, want %q", seed, index, id, v.Data, err, data)
				}
			}
			mustClose(t, d)
		}
	}
}

// The snapshot is a cache: failing to write it stops nothing.
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
			if !strings.Contains(said.String(), "index snapshot not written") {
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
