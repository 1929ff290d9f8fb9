package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// A checkpoint that finds the disk full, at either copy and after any number of bytes, leaves
// a good copy on the disk, even while the next checkpoint is written.
func TestACheckpointThatFindsTheDiskFullLeavesAGoodCopy(t *testing.T) {
	for fails := 1; fails <= 4; fails++ {
		for _, written := range []int64{0, 100, 600} {
			t.Run(fmt.Sprintf("write %d after %d bytes", fails, written), func(t *testing.T) {
				fs := memdisk.New()
				c := goldenCheckpoint()
				c.Number = 1
				c.Segments = nil
				for n := range uint64(500) { // more than a sector
					c.Segments = append(c.Segments, 1+300*n)
				}
				if err := errors.Join(fs.MkdirAll("data"), createCheckpoint(fs, "data", &c), fs.SyncDir("")); err != nil {
					t.Fatal(err)
				}
				f, _, err := openCheckpoint(fs, "data")
				if err != nil {
					t.Fatal(err)
				}
				from, writes := fs.Len(), 0
				fs.Fail(func(op memdisk.Op) error {
					if op.Kind != memdisk.Write {
						return nil
					}
					if writes++; writes == fails || writes == fails+1 {
						return memdisk.Short(written, syscall.ENOSPC)
					}
					return nil
				})
				fs.Mark(uint64(1))
				for n := uint64(2); n < 8; n++ {
					c.Number = n
					c.Segments = append(c.Segments, c.Segments[len(c.Segments)-1]+7)
					err := f.write(&c)
					if err == nil {
						fs.Mark(n)
					} else if !disk.IsFull(err) || !isPutOff(err) {
						t.Fatal(err)
					}
				}
				wantCheckpointAtEveryCut(t, fs, from)
				if err := f.f.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// wantCheckpointAtEveryCut opens CHECKPOINT in each state that a power cut can leave. It has
// to hold the newest checkpoint that was written, or a later one.
func wantCheckpointAtEveryCut(t *testing.T, fs *memdisk.FS, from int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for cut := range fs.Cuts() {
		if cut.At() <= from {
			continue
		}
		marks := cut.Marks()
		least := marks[len(marks)-1].(uint64)
		states := []*memdisk.FS{cut.Nothing(), cut.Everything()}
		for range 10 {
			states = append(states, cut.Random(rnd))
		}
		for _, state := range states {
			f, c, err := openCheckpoint(state, "data")
			if err != nil {
				t.Fatalf("at %v: %v", cut.Last(), err)
			}
			if c.Number < least || !slices.IsSorted(c.Segments) {
				t.Fatalf("at %v: checkpoint %d, want %d or later", cut.Last(), c.Number, least)
			}
			if err := f.f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Both copies are written, whichever comes first.
func TestBothCopiesOfACheckpointAreWritten(t *testing.T) {
	fs := memdisk.New()
	c := goldenCheckpoint()
	if err := errors.Join(fs.MkdirAll("data"), createCheckpoint(fs, "data", &c), fs.SyncDir("")); err != nil {
		t.Fatal(err)
	}
	f, _, err := openCheckpoint(fs, "data")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Number++
		if err := f.write(&c); err != nil {
			t.Fatal(err)
		}
		b, err := fs.ReadFile(path.Join("data", checkpointName))
		if err != nil {
			t.Fatal(err)
		}
		for _, half := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
			if got, err := decodeCheckpoint(half); err != nil || got.Number != c.Number {
				t.Fatalf("a copy holds %+v, %v, want number %d", got, err, c.Number)
			}
		}
	}
	if err := f.f.Close(); err != nil {
		t.Error(err)
	}
}
