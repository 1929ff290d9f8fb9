package db

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// steps are what a store.Progress was told.
type steps struct {
	t           *testing.T
	n           int
	done, total int64
	least       int64 // the smallest share that was told, in percent
}

func (s *steps) told(done, total int64) {
	if done < s.done || done > total {
		s.t.Errorf("told %d of %d after %d of %d", done, total, s.done, s.total)
	}
	if s.n == 0 {
		s.least = 100 * done / total
	}
	s.n, s.done, s.total = s.n+1, done, total
}

// want checks that there were more than a few steps from the beginning to the end, and that
// they reported at least that many bytes.
func (s *steps) want(what string, bytes int64) {
	s.t.Helper()
	if s.n < 10 || s.least > 20 || s.done != s.total || s.total < bytes {
		s.t.Errorf("%s: told %d times, first %d%%, last %d of %d; want %d or more", what, s.n, s.least, s.done, s.total, bytes)
	}
}

// fillForProgress makes values in many segments, and many slots.
func fillForProgress(t *testing.T, d *DB) (bytes int64) {
	t.Helper()
	for i := range 100 {
		if err := d.Do(&ValueSet{Key: Key{Acc: "a", ID: fmt.Sprint("v", i)}, Data: make([]byte, 4<<10), Conditions: Conditions{Check: AnyVersion}}); err != nil {
			t.Fatal(err)
		}
		bytes += 4 << 10
	}
	for i := range 9000 {
		if i%1000 == 0 { // so that CHECKPOINT counts most of them
			if err := d.store.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Do(&SequenceAdd{Key: Key{Acc: "a", ID: fmt.Sprint("s", i)}, N: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return bytes
}

func TestStartTellsHowFarItIs(t *testing.T) {
	fs := memdisk.New()
	o := Options{FS: fs, Dir: "data", Segment: 64 << 10, CheckpointRoom: 4096, CheckpointEvery: 1 << 20, Clock: newTestClock().read}
	d := mustOpen(t, o)
	bytes := fillForProgress(t, d)
	mustClose(t, d)
	for _, c := range []struct {
		what  string
		least int64
	}{
		{"with the snapshot of the index", 8000 * 64},
		{"without it", 8000*64 + bytes},
	} {
		s := steps{t: t}
		o.Progress = s.told
		d = mustOpen(t, o)
		if c.least > 8000*64 {
			s.want(c.what, c.least)
		} else if s.n < 3 || s.done != s.total || s.total < c.least {
			t.Errorf("%s: told %d times, last %d of %d; want %d or more", c.what, s.n, s.done, s.total, c.least)
		}
		if got := d.Stats().Recovery; got.Bytes < c.least || got.Bytes > s.total || got.Took <= 0 {
			t.Errorf("%s: the metrics show %+v of %d, want %d bytes or more", c.what, got, s.total, c.least)
		}
		mustClose(t, d)
		if err := fs.Remove("data/index"); err != nil {
			t.Fatal(err)
		}
	}
	s := steps{t: t}
	if _, err := Verify(fs, o.Dir, func(d *disk.Damage) { t.Errorf("damage: %v", d) }, s.told); err != nil {
		t.Fatal(err)
	}
	s.want("verify", 2*bytes+8000*64)
}

func TestRestoreTellsHowFarItIs(t *testing.T) {
	d := mustOpen(t, small(t))
	bytes := fillForProgress(t, d)
	size := d.BackupSize()
	file := filepath.Join(t.TempDir(), "copy")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Backup(t.Context(), f, "test"); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The headers of the archive and its manifest are not counted.
	if got := info.Size(); size > got || size < got*9/10 {
		t.Errorf("a backup of %d bytes was announced as %d", got, size)
	}
	mustClose(t, d)
	s := steps{t: t}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o := restoreOf(b, filepath.Join(t.TempDir(), "new"))
	o.Size, o.Progress = int64(len(b)), s.told
	mustRestore(t, o)
	s.want("restore", 3*bytes)
}
