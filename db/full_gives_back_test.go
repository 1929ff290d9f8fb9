package db

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// Whatever the sizes, on a full disk deletes are done, and a third of what they
// gave back can be written at once.
func TestDeletesMakeRoomOnAFullDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.Segment = int64(rapid.IntRange(16, 64).Draw(t, "segment in pages")) * 4096
		o.CompactRatio = 1000
		o.CheckpointEvery = o.Segment
		d, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		fs.SetRoom(fs.Used() + int64(rapid.IntRange(4, 20).Draw(t, "segments"))*o.Segment)
		most := rapid.IntRange(500, int(o.Segment/3)).Draw(t, "largest value")
		size := func() int { return rapid.IntRange(max(400, most/2), most).Draw(t, "value") }
		sizes := make(map[int]int)
		set := func(n, size int) error {
			_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, size), Check: AnyVersion})
			return err
		}
		n := 0
		for ; ; n++ {
			size := size()
			if err := set(n, size); errors.Is(err, ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			sizes[n] = size
		}
		share := rapid.IntRange(2, 9).Draw(t, "tenths deleted")
		freed := 0
		for i := range n {
			if i%10 >= share {
				continue
			}
			if err := d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion); err != nil {
				t.Fatalf("delete %d of %d: %v", i, n, err)
			}
			freed += sizes[i]
			delete(sizes, i)
		}
		for want := freed / 3; want > 0; n++ {
			size := min(size(), want)
			if err := set(n, size); err != nil {
				t.Fatalf("%d of %d bytes are still to come back, %d are live: %v, %+v", want, freed, sum(sizes), err, d.Stats())
			}
			sizes[n] = size
			want -= size
		}
		for i, size := range sizes {
			if v, err := d.Get(Key{"a", fmt.Sprint(i)}); err != nil || len(v.Data) != size {
				t.Fatalf("value %d has %d bytes, want %d: %v", i, len(v.Data), size, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func sum(sizes map[int]int) (n int) {
	for _, size := range sizes {
		n += size
	}
	return n
}

// A value that is larger than what is left says that the disk is full, too.
func TestALargeValueSaysThatTheDiskIsFull(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	var said strings.Builder
	o.Segment, o.Log = 1<<20, slog.New(slog.NewTextHandler(&said, nil))
	d := mustOpen(t, o)
	wantDone(t, "a second segment", d.store.PrepareSegment())
	fs.SetRoom(fs.Used() + o.Segment/2)
	var err error
	for n := 0; err == nil; n++ {
		_, err = d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 400<<10), Check: AnyVersion})
	}
	wantFull(t, d, "a large value", err)
	if !d.Stats().DiskFull {
		t.Error("the figures do not say that the disk is full")
	}
	mustClose(t, d)
	if !strings.Contains(said.String(), "disk full") {
		t.Errorf("the log does not say that the disk is full:\n%s", said.String())
	}
}
