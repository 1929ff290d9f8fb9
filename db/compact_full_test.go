package db

import (
	"errors"
	"fmt"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// crowd is a database on a disk with room for the given number of segments beside a new
// directory. Its compaction ratio is so high that it compacts only when the disk is full.
func crowd(t *testing.T, segments int64) (*memdisk.FS, Options, *DB) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	o.Segment, o.CompactRatio = 64<<10, 1000
	mustClose(t, mustOpen(t, o))
	fs.SetRoom(fs.Used() + segments*o.Segment)
	return fs, o, mustOpen(t, o)
}

func TestAFullDiskIsCompactedOutOf(t *testing.T) {
	_, o, d := crowd(t, 6)
	set := func(k string, n int) error {
		_, err := d.Set(SetRequest{Key: Key{"1", k}, Data: make([]byte, n), Check: AnyVersion})
		return err
	}
	if err := set("kept", 5000); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 { // sixty segments' worth
		if err := set(fmt.Sprint(i%10), 4000); err != nil {
			t.Fatalf("write %d: %v, %+v", i, err, d.Stats().Compaction)
		}
	}
	if d.Stats().Compaction.Freed == 0 {
		t.Error("nothing was compacted")
	}
	mustClose(t, d)
	d = mustOpen(t, o)
	if v, err := d.Get(Key{"1", "kept"}); err != nil || len(v.Data) != 5000 {
		t.Error(len(v.Data), err)
	}
	mustClose(t, d)
}

func TestOnADiskFullOfLiveValuesDeletesGoOnAndMakeRoom(t *testing.T) {
	_, o, d := crowd(t, 6)
	set := func(i int) error {
		_, err := d.Set(SetRequest{Key: Key{"1", fmt.Sprint(i)}, Data: make([]byte, 1000), Check: AnyVersion})
		return err
	}
	stored := 0
	for ; ; stored++ {
		if err := set(stored); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if stored < 5*60 {
		t.Fatalf("only %d values were stored", stored)
	}
	for range 20 { // each of which looks for room
		if err := set(stored); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	for i := range stored {
		if i%10 == 0 {
			continue
		}
		if err := d.DeleteValue(Key{"1", fmt.Sprint(i)}, AnyVersion); err != nil {
			t.Fatalf("delete %d of %d: %v", i, stored, err)
		}
	}
	for i := range stored / 2 {
		if err := set(stored + i); err != nil {
			t.Fatalf("write %d of %d after the deletes: %v, %+v", i, stored/2, err, d.Stats().Compaction)
		}
	}
	for range 2 {
		for i := range stored {
			_, err := d.Get(Key{"1", fmt.Sprint(i)})
			if i%10 == 0 && err != nil || i%10 != 0 && !errors.Is(err, ErrNotFound) {
				t.Fatal(i, err)
			}
		}
		mustClose(t, d)
		dropIndex(o.FS.(*memdisk.FS))
		d = mustOpen(t, o)
	}
	mustClose(t, d)
}
