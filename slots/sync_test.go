package slots

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

func TestAFailedSyncIsNeverTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		kind memdisk.Kind
		err  error
		call func(w *writer) error
	}{
		"msync":                    {memdisk.SyncMap, syscall.EIO, func(w *writer) error { return w.Sync() }},
		"of a growth":              {memdisk.Sync, syscall.EIO, func(w *writer) error { return w.Grow(1) }},
		"msync, for want of room":  {memdisk.SyncMap, syscall.ENOSPC, func(w *writer) error { return w.Sync() }},
		"growth, for want of room": {memdisk.Sync, syscall.ENOSPC, func(w *writer) error { return w.Grow(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			fs := created(t)
			w := newWriter(open(t, fs, checkpoint{sizes: initial}))
			w.put(t, small(1), "x")
			failing(fs, c.kind, c.err)
			first := c.call(w)
			if !errors.Is(first, ErrSync) || disk.IsFull(first) || !strings.Contains(first.Error(), "data/slots-") {
				t.Fatalf("the error is %v, wanted ErrSync with the file's name, and not a full disk", first)
			}
			fs.Fail(func(op memdisk.Op) error {
				if op.Kind == memdisk.Sync || op.Kind == memdisk.SyncMap || op.Kind == memdisk.Allocate {
					t.Errorf("%v after a failed sync", op)
				}
				return nil
			})
			w.put(t, small(2), "x")
			for range 2 {
				if err := w.Sync(); err != first {
					t.Errorf("Sync says %v, wanted the first error", err)
				}
				if err := w.Grow(0); err != first {
					t.Errorf("Grow says %v, wanted the first error", err)
				}
			}
		})
	}
}

func TestOnlyWhatChangedIsSynced(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	for i := range 300 {
		w.put(t, small(i), "x")
	}
	must(t, w.Sync())
	var synced []string
	meanwhile := func() {}
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.SyncMap {
			synced = append(synced, fmt.Sprint(op.Name, " ", op.Off))
			meanwhile()
		}
		return nil
	})
	check := func(want ...string) {
		t.Helper()
		synced = nil
		must(t, w.Sync())
		if fmt.Sprint(synced) != fmt.Sprint(want) {
			t.Errorf("synced %v, wanted %v", synced, want)
		}
	}
	check()
	w.put(t, small(70), "y")
	w.put(t, small(80), "y")
	w.put(t, small(299), "y")
	w.put(t, Key{Kind: 1, Acc: "a", ID: strings.Repeat("i", 100)}, "y")
	check("data/slots-64 8192", "data/slots-64 20480", "data/slots-128 4096")
	check()

	// A store while its extent is synced belongs to the next sync.
	w.put(t, small(70), "z")
	meanwhile = func() { w.put(t, small(71), "z") }
	check("data/slots-64 8192")
	meanwhile = func() {}
	check("data/slots-64 8192")
	check()
}

// If a sync skips an extent while a store to it is in progress, the next sync covers the
// store.
func TestStoreDuringASyncIsCoveredByTheNext(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	for i := range 300 {
		w.put(t, small(i), "x")
	}
	must(t, w.Sync())
	first, middle, last := w.extentOf(small(0)), w.extentOf(small(70)), w.extentOf(small(299))
	w.put(t, small(0), "y")
	w.put(t, small(299), "y")
	began, passed, stored := make(chan struct{}), make(chan struct{}), make(chan struct{})
	fs.Fail(func(op memdisk.Op) error {
		switch {
		case op.Kind == memdisk.SyncMap && op.Off == first:
			go func() {
				defer close(stored)
				w.put(t, small(70), "y")
			}()
			<-began
		case op.Kind == memdisk.Store:
			close(began)
			<-passed
		case op.Kind == memdisk.SyncMap && op.Off == last:
			close(passed)
		}
		return nil
	})
	must(t, w.Sync())
	<-stored
	synced := false
	fs.Fail(func(op memdisk.Op) error {
		synced = synced || op.Kind == memdisk.SyncMap && op.Off == middle
		return nil
	})
	must(t, w.Sync())
	if !synced {
		t.Error("a store that the first sync missed is not covered by the next")
	}
}

// extentOf returns where the extent of a key's slot begins in the file.
func (w *writer) extentOf(k Key) int64 {
	r, _, _ := w.Lookup(k, k.Hash())
	return headerSize + (r.offset()-headerSize)/testExtent*testExtent
}

// Images for which the disk has no room can be read, and block checkpoints.
func TestImagesWithoutRoomAreKept(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	want := make(map[Key]string)
	put := func(i int, payload string) {
		w.put(t, small(i), payload)
		want[small(i)] = payload
	}
	put(0, "old")
	put(1, "old")
	must(t, w.Sync())
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Store {
			return syscall.EDQUOT
		}
		return nil
	})
	put(0, "new")
	put(0, "newer")
	put(2, "new")
	w.remove(small(1))
	w.commit()
	delete(want, small(1))
	keys := []Key{small(0), small(1), small(2)}
	holds(t, w.Tables, keys, want)
	for range 2 {
		if err := w.Sync(); !errors.Is(err, ErrNoRoom) || !errors.Is(err, syscall.EDQUOT) {
			t.Fatalf("Sync without room: %v, wanted ErrNoRoom with the cause", err)
		}
	}
	must(t, w.Err())
	fs.Fail(nil)
	put(2, "newest") // overrides the kept image
	last := checkpoint{sizes: w.Sizes(), used: w.Used()}
	must(t, w.Sync())
	holds(t, w.Tables, keys, want)
	holds(t, recovered(t, fs.Cut(fs.Len()).Nothing(), last, nil), keys, want)
}

func TestFailedStoreIsFinal(t *testing.T) {
	fs := created(t)
	w := newWriter(open(t, fs, checkpoint{sizes: initial}))
	failing(fs, memdisk.Store, syscall.EIO)
	w.put(t, small(0), "x")
	fs.Fail(nil)
	if err := w.Err(); !errors.Is(err, ErrSync) {
		t.Errorf("after a store that failed: %v, wanted ErrSync", err)
	}
	if err := w.Sync(); !errors.Is(err, ErrSync) {
		t.Errorf("a sync after it: %v, wanted ErrSync", err)
	}
}
