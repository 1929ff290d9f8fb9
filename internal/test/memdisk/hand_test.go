package memdisk

import (
	"errors"
	iofs "io/fs"
	"os"
	"slices"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
)

var errDisk = errors.New("the disk failed")

func TestTheHookFailsExactlyTheCallItPicks(t *testing.T) {
	r := newRig(t, fill('a', pageSize), true)
	m := r.mapped(0, pageSize)
	calls := map[Kind]func() error{
		Open:     func() error { _, err := r.fs.Open("f"); return err },
		Create:   func() error { _, err := r.fs.Create("g"); return err },
		MkdirAll: func() error { return r.fs.MkdirAll("d") },
		Rename:   func() error { return r.fs.Rename("f", "g") },
		Remove:   func() error { return r.fs.Remove("f") },
		ReadDir:  func() error { _, err := r.fs.ReadDir(""); return err },
		SyncDir:  func() error { return r.fs.SyncDir("") },
		Read:     func() error { _, err := r.ReadAt(make([]byte, 1), 0); return err },
		Write:    func() error { _, err := r.WriteAt([]byte("x"), 2*pageSize); return err },
		Size:     func() error { _, err := r.Size(); return err },
		Allocate: func() error { return r.Allocate(0, 2*pageSize) },
		Truncate: func() error { return r.Truncate(2 * pageSize) },
		Sync:     r.Sync,
		Map:      func() error { _, err := r.Map(0, 1); return err },
		SyncMap:  m.Sync,
		Store:    func() error { return m.Store(0, []byte("x")) },
	}
	for kind, call := range calls {
		var got Op
		r.fs.Fail(func(op Op) error { got = op; return errDisk })
		wantErr(t, kind.String(), call(), errDisk)
		if got.Kind != kind || got.N == 0 {
			t.Errorf("the hook saw %v for a %s", got, kind)
		}
	}
	r.fs.Fail(nil)
	if got := letters(t, "f", pageSize)(r.fs); got != "a" || len(r.fs.Files()) != 1 || r.fs.OpenHandles() != 2 {
		t.Errorf("failed calls did something: %q %v, %d handles", got, r.fs.Files(), r.fs.OpenHandles())
	}
	must(t, calls[Open]())
	failNext(r.fs, Close, errDisk)
	wantErr(t, "Close", r.Close(), errDisk)
	wantErr(t, "Close again", r.Close(), os.ErrClosed)
}

func TestShortWriteDoesItsFirstBytes(t *testing.T) {
	r := newRig(t, fill('a', 4), true)
	failNext(r.fs, Write, Short(2, errDisk))
	n, err := r.WriteAt([]byte("bbbb"), 3)
	wantErr(t, "WriteAt", err, errDisk)
	if got := read(t, r.fs, "f"); n != 2 || string(got) != "aaabb" {
		t.Errorf("a write of 2 bytes wrote %d: %q", n, got)
	}
	if e := r.fs.Journal()[r.fs.Len()-1]; e.Len != 2 {
		t.Errorf("the journal has %v", e)
	}
	failNext(r.fs, Allocate, Short(1, syscall.ENOSPC))
	if err := r.Allocate(5, 10); !disk.IsFull(err) {
		t.Errorf("Allocate: %v", err)
	}
	if n, err := r.Size(); n != 6 || err != nil {
		t.Errorf("an Allocate of 1 byte at 5 leaves %d bytes, %v", n, err)
	}
}

func TestFrozenDiskDoesNothingMore(t *testing.T) {
	r := newRig(t, fill('a', pageSize), true)
	m := r.mapped(0, pageSize)
	r.write(0, []byte("b"))
	r.fs.Fail(func(op Op) error {
		if op.Kind == Sync {
			r.fs.Freeze() // the power fails during the sync
		}
		return nil
	})
	wantErr(t, "Sync", r.Sync(), syscall.EIO)
	n := r.fs.Len()
	_, err := r.WriteAt([]byte("c"), 0)
	wantErr(t, "WriteAt", err, syscall.EIO)
	_, err = r.ReadAt([]byte("c"), 0)
	wantErr(t, "ReadAt", err, syscall.EIO)
	_, err = r.fs.Create("g")
	wantErr(t, "Create", err, syscall.EIO)
	wantErr(t, "mapping's Sync", m.Sync(), syscall.EIO)
	m.Store(0, []byte("d"))
	if m.Bytes()[0] != 'd' {
		t.Error("a store on a frozen disk does not change the memory")
	}
	must(t, m.Close())
	must(t, r.Close())
	if r.fs.Len() != n || r.fs.OpenHandles() != 0 {
		t.Errorf("the journal has %d entries more, %d handles are open", r.fs.Len()-n, r.fs.OpenHandles())
	}
	wantStates(t, r.fs, letters(t, "f", pageSize), "a", "b")
	if _, err := r.fs.Reopen().Open("f"); err != nil {
		t.Errorf("reopened, the disk is still frozen: %v", err)
	}
}

func TestFullDiskGivesENOSPCUntilThereIsRoom(t *testing.T) {
	r := newRig(t, fill('a', 1000), true)
	r.fs.SetRoom(1500)
	if n, err := r.WriteAt(fill('b', 1000), 900); n != 600 || !disk.IsFull(err) {
		t.Errorf("a write of 1000 bytes with room for 600: %d, %v", n, err)
	}
	if err := r.Allocate(1500, 1); !disk.IsFull(err) {
		t.Errorf("Allocate: %v", err)
	}
	if err := r.Truncate(1501); !disk.IsFull(err) {
		t.Errorf("Truncate: %v", err)
	}
	_, err := r.fs.Create("g")
	if pe := (*os.PathError)(nil); !errors.As(err, &pe) || !disk.IsFull(err) {
		t.Errorf("Create: %v", err)
	}
	r.write(0, fill('c', 1500)) // what is there may be overwritten
	must(t, r.Truncate(100))
	if got := r.fs.Used(); got != 100 {
		t.Errorf("%d bytes are used, want 100", got)
	}
	g, err := r.fs.Create("g")
	must(t, err)
	must(t, g.Allocate(0, 1400))
	must(t, r.fs.Remove("g"))
	if err := r.Allocate(0, 101); !disk.IsFull(err) {
		t.Errorf("a removed file that is open takes no room: %v", err)
	}
	must(t, g.Close())
	must(t, r.Allocate(0, 1500))
	r.fs.SetRoom(-1)
	must(t, r.Allocate(0, 1<<20))
}

func TestDamageHelpers(t *testing.T) {
	fs := New()
	must(t, fs.WriteFile("a/b/c", []byte("one")))
	must(t, fs.WriteFile("a/b/c", []byte("2")))
	must(t, fs.WriteFile("/a/d", nil))
	if got := fs.Files(); !slices.Equal(got, []string{"a/b/c", "a/d"}) {
		t.Errorf("files %v", got)
	}
	wantStates(t, fs, func(fs *FS) string { return string(read(t, fs, "a/b/c")) }, "2")
	_, err := fs.ReadFile("a")
	wantErr(t, "ReadFile of a directory", err, syscall.EISDIR)
	_, err = fs.ReadFile("nothing")
	wantErr(t, "ReadFile", err, iofs.ErrNotExist)
	wantErr(t, "Remove", fs.Remove("a"), syscall.ENOTEMPTY)
	wantErr(t, "WriteFile onto a directory", fs.WriteFile("a", nil), syscall.EISDIR)
	wantErr(t, "WriteFile under a file", fs.WriteFile("a/d/e", nil), syscall.ENOTDIR)
}

func TestCutUnderAMappingIsNotHidden(t *testing.T) {
	r := newRig(t, fill('a', 2*pageSize), true)
	m := r.mapped(0, pageSize)
	must(t, r.Truncate(pageSize))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a file is cut under a mapping, and nothing says so")
			}
		}()
		wantErr(t, "Truncate", r.Truncate(pageSize-1), nil)
	}()
	must(t, m.Close())
	must(t, r.Truncate(0))
}
