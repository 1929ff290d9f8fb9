package db

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"clouddragon/db/store"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
)

// A value that could not be read for a moment does not come back after it was replaced.
func TestUnreadableForAMomentDoesNotComeBack(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	d := mustOpen(t, o)
	k := Key{"a", "k"}
	set := func(data string) (int64, error) {
		return d.Set(SetRequest{Key: k, Data: []byte(data), Check: AnyVersion})
	}
	_, err := set("old")
	wantDone(t, "the first", err)
	var bad atomic.Bool
	bad.Store(true)
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read && strings.HasSuffix(op.Name, ".seg") && bad.Load() {
			return syscall.EIO
		}
		return nil
	})
	_, err = set("new")
	bad.Store(false)
	want := "new"
	if err != nil {
		want = "old"
	}
	for range 3 {
		v, err := d.Get(k)
		if err != nil || string(v.Data) != want {
			t.Errorf("%q, %v, want %q", v.Data, err, want)
		}
		if err := d.DeleteValue(k, AnyVersion); err != nil {
			t.Error(err)
		}
		if v, err := d.Get(k); err != ErrNotFound {
			t.Errorf("deleted: %q, %v", v.Data, err)
		}
		want = "again"
		if _, err := set(want); err != nil {
			t.Error(err)
		}
	}
	mustClose(t, d)
}

// A failure to move one record is remembered while the next ones are moved: a segment whose
// tombstone could not be moved must not be freed.
func TestTombstoneThatCannotBeMovedKeepsItsSegment(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	moves := make([]kvlog.Move, 2)
	for i := range moves {
		k := Key{"a", fmt.Sprint(i)}
		_, err := d.Set(SetRequest{Key: k, Data: []byte("x"), Check: AnyVersion})
		wantDone(t, "a value", err)
		moves[i] = kvlog.Move{Type: kvlog.TypeTombstone, Acc: k.Acc, ID: k.ID, Hash: d.store.Values.Hash(k.Acc, k.ID), Origin: 1, Size: 64}
	}
	var reads atomic.Int32
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read && strings.HasSuffix(op.Name, ".seg") && reads.Add(1) == 1 {
			return syscall.EIO
		}
		return nil
	})
	if err := d.writer.Do(&store.Move{Moves: moves, Bytes: 128}); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	mustClose(t, d)
}
