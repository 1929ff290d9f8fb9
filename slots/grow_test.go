package slots

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// small is a key of the smallest class.
func small(i int) Key { return Key{Kind: 1, Acc: "a", ID: fmt.Sprint(i)} }

// sizeOf returns the length of a class's file.
func sizeOf(t *testing.T, fs *memdisk.FS, class int) int64 {
	t.Helper()
	b, err := fs.ReadFile("data/" + FileName(class))
	must(t, err)
	return int64(len(b))
}

// failing makes the next call of a kind fail.
func failing(fs *memdisk.FS, kind memdisk.Kind, err error) {
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == kind {
			fs.Fail(nil)
			return err
		}
		return nil
	})
}

func TestATableGrowsByASixteenth(t *testing.T) {
	fs := created(t)
	tables := open(t, fs, checkpoint{sizes: initial})
	for have := uint64(1); have < 50; {
		must(t, tables.Grow(3))
		got := tables.Capacity(3) / (testExtent / 512)
		if want := have + max(1, have/16); got != want {
			t.Fatalf("%d extents grew to %d, wanted %d", have, got, want)
		}
		have = got
		if size := sizeOf(t, fs, 3); size != tables.Sizes()[3] || size != int64(headerSize+have*testExtent) {
			t.Fatalf("%d extents are a file of %d bytes, Sizes says %d", have, size, tables.Sizes()[3])
		}
		if r := MakeRef(3, tables.Capacity(3)); tables.Has(r) || !tables.Has(r-1) {
			t.Fatalf("Has does not end at slot %d", r.Number())
		}
	}
}

func TestRoomIsDurableBeforeItCanBeUsed(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	grown := 0
	for i := range 1000 {
		if _, ok := w.Alloc(0); ok {
			continue
		}
		must(t, w.Grow(0))
		left := fs.Cut(fs.Len()).Nothing()
		if got, want := sizeOf(t, left, 0), w.Sizes()[0]; got != want {
			t.Fatalf("after %d slots a power cut left %d bytes, wanted %d", i, got, want)
		}
		grown++
	}
	if grown < 10 {
		t.Errorf("it grew only %d times", grown)
	}
}

func TestAFullDiskLeavesTheTableAsItWas(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	for i := range 64 {
		w.put(t, small(i), "x")
	}
	for _, room := range []int64{0, 1, testExtent - 1} {
		fs.SetRoom(fs.Used() + room)
		before, free := sizeOf(t, fs, 0), w.Sizes()
		err := w.Grow(0)
		if !disk.IsFull(err) || !strings.Contains(err.Error(), "data/slots-64") {
			t.Errorf("with room for %d bytes the error is %v, wanted that the disk is full and the file's name", room, err)
		}
		if got := sizeOf(t, fs, 0); got != before || w.Sizes() != free || w.Capacity(0) != 64 {
			t.Errorf("with room for %d bytes the file went from %d to %d bytes, of %d slots", room, before, got, w.Capacity(0))
		}
		if _, ok := w.Alloc(0); ok {
			t.Fatal("a slot was allocated without room for it")
		}
		w.put(t, small(1), "y")
		must(t, w.Sync())
	}

	// A freed slot or more room on the disk is enough.
	w.remove(small(5))
	w.commit()
	w.put(t, small(100), "z")
	fs.SetRoom(-1)
	w.put(t, small(101), "z")
	for k, want := range map[Key]string{small(1): "y", small(2): "x", small(100): "z", small(101): "z"} {
		if got, _ := w.Get(k, k.Hash(), nil); string(got) != want {
			t.Errorf("%+v is %q, wanted %q", k, got, want)
		}
	}
}

func TestTableGrowsByWhatFitsOnAnAlmostFullDisk(t *testing.T) {
	fs := created(t)
	tables := open(t, fs, checkpoint{sizes: initial})
	for tables.Capacity(0) < 64*64 {
		must(t, tables.Grow(0))
	}
	have := tables.Capacity(0)
	fs.SetRoom(fs.Used() + 2*testExtent)
	must(t, tables.Grow(0)) // asks for four extents, then for two
	if got := tables.Capacity(0); got != have+2*64 {
		t.Errorf("%d slots grew to %d, wanted two extents more", have, got)
	}
}

func TestAMappingThatFailsLeavesTheTableAsItWas(t *testing.T) {
	fs := created(t)
	tables := open(t, fs, checkpoint{sizes: initial})
	failing(fs, memdisk.Map, syscall.ENOMEM)
	if err := tables.Grow(0); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("the error is %v, wanted that of the mapping", err)
	}
	if got := sizeOf(t, fs, 0); got != initial[0] || tables.Capacity(0) != 64 {
		t.Errorf("the file has %d bytes and %d slots", got, tables.Capacity(0))
	}
	must(t, tables.Grow(0))
	must(t, tables.Sync())
}

func TestPartsThatACrashMayHaveLeftAsHolesAreCutOff(t *testing.T) {
	fs := created(t)
	last := checkpoint{sizes: initial}
	tables := open(t, fs, last)
	for range 3 {
		must(t, tables.Grow(0))
	}
	must(t, tables.Grow(1))
	w := newWriter(tables)
	for i := range 65 { // into the second extent of slots-64
		w.put(t, small(i), "x")
	}

	left := fs.Clone()
	// And a growth of slots-256 that was interrupted within an extent.
	edit(t, left, "slots-256", func(b []byte) []byte { return append(b, make([]byte, 512)...) })
	again := newWriter(open2(t, left, last, w.log))
	want := [4]int64{headerSize + 2*testExtent, initial[1], initial[2], initial[3]}
	if again.Sizes() != want {
		t.Errorf("the sizes are %d, wanted %d", again.Sizes(), want)
	}
	for class := range Classes {
		if got := sizeOf(t, left, class); got != want[class] {
			t.Errorf("%s has %d bytes, wanted %d", FileName(class), got, want[class])
		}
	}
	// The table can grow again.
	for i := range 200 {
		again.put(t, small(i), "y")
	}
	must(t, again.Sync())
}

// open2 is open with a log.
func open2(t *testing.T, fs *memdisk.FS, c checkpoint, log map[Ref][]byte) *Tables {
	t.Helper()
	tables := recovered(t, fs, c, log)
	t.Cleanup(func() { must(t, tables.Close()) })
	return tables
}

func TestSlotsAreUsedAgain(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	for i := range 1000 {
		w.put(t, small(i), "x")
		if i >= 30 {
			w.remove(small(i - 30))
			w.commit()
		}
	}
	if got := w.Capacity(0); got != 64 {
		t.Errorf("30 keys at a time grew the table to %d slots", got)
	}
	if used := w.Used()[0]; used > 31 {
		t.Errorf("31 keys at a time used %d slots", used)
	}
	// This also holds after a restart, and the lowest slot is taken first.
	must(t, w.Sync())
	again := newWriter(open(t, fs.Clone(), checkpoint{w.Sizes(), w.Used()}))
	first, _ := again.Alloc(0)
	if first.Number() >= 31 {
		t.Errorf("slot %d was taken though 30 of the first 31 are used", first.Number())
	}
}

func TestSlotThatWasAllocatedButNotUsedIsNoDamage(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	taken, _ := w.Alloc(0)
	w.put(t, small(1), "x")
	w.Release(taken)
	must(t, w.Sync())
	for name, c := range map[string]struct {
		checkpoint
		log map[Ref][]byte
	}{
		"after the checkpoint": {checkpoint{sizes: initial}, w.log},
		"before it":            {checkpoint{w.Sizes(), w.Used()}, nil},
	} {
		again := open2(t, fs.Clone(), c.checkpoint, c.log)
		if r, _ := again.Alloc(0); r != taken {
			t.Errorf("%s: slot %d was allocated, wanted %d", name, r.Number(), taken.Number())
		}
	}
}

func TestATableGrowsWhileItIsReadAndWritten(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	w.put(t, small(0), "first")
	var others sync.WaitGroup
	done := make(chan struct{})
	until := func(call func() error) {
		others.Go(func() {
			for {
				if err := call(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 2 {
		buf := make([]byte, 0, 64)
		until(func() error {
			if got, ok := w.Get(small(0), small(0).Hash(), buf); !ok || !strings.HasPrefix(string(got), "first") {
				return fmt.Errorf("the key reads as %q, %v", got, ok)
			}
			return nil
		})
	}
	until(w.Sync)
	until(func() error {
		if s := w.Stats().Classes[0]; s.Used > s.Capacity || w.Used()[0] > w.Capacity(0) {
			return fmt.Errorf("%+v: more is used than there is", s)
		}
		return nil
	})
	for class := range Classes {
		others.Go(func() {
			for range 10 {
				if err := w.Grow(class); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := 1; i < 1000; i++ {
		w.put(t, small(i), "x")
		w.put(t, small(0), fmt.Sprint("first, time ", i))
	}
	close(done)
	others.Wait()
}

func TestFailedSyncOfAGrowthFailsTheSyncAroundIt(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	w.put(t, small(1), "x")
	fs.Fail(func(op memdisk.Op) error {
		switch op.Kind {
		case memdisk.SyncMap: // of the slot; a growth comes in between, and its sync meets the fault
			if err := w.Grow(0); !errors.Is(err, ErrSync) {
				t.Errorf("grow: %v", err)
			}
		case memdisk.Sync:
			return syscall.EIO
		}
		return nil
	})
	if err := w.Sync(); !errors.Is(err, ErrSync) {
		t.Errorf("sync: %v, want an error, because a stored page may be lost", err)
	}
}
