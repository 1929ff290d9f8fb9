package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"clouddragon/internal/disk"
)

const page = 4096

// create makes a file that is closed when the test ends.
func create(t *testing.T, name string, content []byte) disk.File {
	t.Helper()
	f, err := disk.OS{}.Create(name)
	must(t, err)
	t.Cleanup(func() { f.Close() }) // closed already in some tests
	if len(content) > 0 {
		_, err = f.WriteAt(content, 0)
		must(t, err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func TestAllocateTakesBlocksExtendsAndZeros(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	old := bytes.Repeat([]byte{'x'}, 2*page)
	f := create(t, name, old)
	const end = 3 << 20
	must(t, f.Allocate(page, end-page))
	must(t, f.Sync())

	got, err := os.ReadFile(name)
	must(t, err)
	want := append(old[:page:page], make([]byte, end-page)...)
	if !bytes.Equal(got, want) {
		t.Errorf("after Allocate of [%d, %d) the file has %d bytes, the first page kept: %v, the rest zeros: %v",
			page, end, len(got), bytes.HasPrefix(got, want[:page]), bytes.Equal(got[page:], want[page:]))
	}
	st, err := os.Stat(name)
	must(t, err)
	if took := st.Sys().(*syscall.Stat_t).Blocks * 512; took < end {
		t.Errorf("the file takes %d bytes on the disk, want at least %d: it has holes", took, end)
	}
	if err := f.Allocate(0, 0); err == nil {
		t.Error("Allocate of nothing succeeds")
	}
}

func TestStoresReachTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f := create(t, name, nil)
	must(t, f.Allocate(0, 3*page))
	m, err := f.Map(page, 2*page)
	must(t, err)
	m.Store(page-4, []byte("store"))
	must(t, m.Sync())
	got, err := os.ReadFile(name)
	must(t, err)
	if at := bytes.Index(got, []byte("store")); at != 2*page-4 {
		t.Errorf("a store at %d of a mapping at %d is at %d of the file", page-4, page, at)
	}
	_, err = f.WriteAt([]byte("write"), page)
	must(t, err)
	if got := m.Bytes()[:5]; string(got) != "write" {
		t.Errorf("the mapping shows %q where %q was written", got, "write")
	}
	if len(m.Bytes()) != 2*page {
		t.Errorf("the mapping has %d bytes, want %d", len(m.Bytes()), 2*page)
	}
	must(t, m.Close())
}

func TestOnlyWhatTheFileHoldsIsMapped(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"), make([]byte, 2*page))
	for _, r := range []struct{ off, n int64 }{
		{0, 2*page + 1}, {page, page + 1}, {2 * page, 1}, {4 * page, page},
		{0, 0}, {0, -1}, {-page, page}, {1, page}, {1<<63 - page, page},
	} {
		if m, err := f.Map(r.off, int(r.n)); err == nil {
			t.Errorf("a file of %d bytes is mapped with %d bytes at %d", 2*page, r.n, r.off)
			must(t, m.Close())
		}
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	dir := t.TempDir()
	name, other := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	content := bytes.Repeat([]byte{'x'}, page)
	must(t, create(t, name, content).Close())

	ro := disk.OS{ReadOnly: true}
	f, err := ro.Open(name)
	must(t, err)
	m, err := f.Map(0, page)
	must(t, err)
	if !bytes.Equal(m.Bytes(), content) {
		t.Error("a read-only mapping does not show the file")
	}
	_, err = ro.Create(other)
	wantErr(t, "Create", err, disk.ErrReadOnly)
	wantErr(t, "MkdirAll", ro.MkdirAll(other), disk.ErrReadOnly)
	wantErr(t, "Rename", ro.Rename(name, other), disk.ErrReadOnly)
	wantErr(t, "Remove", ro.Remove(name), disk.ErrReadOnly)
	wantErr(t, "SyncDir", ro.SyncDir(dir), disk.ErrReadOnly)
	_, err = f.WriteAt([]byte("y"), 0)
	wantErr(t, "WriteAt", err, disk.ErrReadOnly)
	wantErr(t, "Truncate", f.Truncate(0), disk.ErrReadOnly)
	wantErr(t, "Allocate", f.Allocate(0, 2*page), disk.ErrReadOnly)
	func() {
		defer func() {
			err, _ := recover().(error)
			wantErr(t, "Store", err, disk.ErrReadOnly)
		}()
		m.Store(0, []byte("y"))
	}()
	must(t, m.Close())
	must(t, f.Close())

	names, err := ro.ReadDir(dir)
	must(t, err)
	got, err := os.ReadFile(name)
	must(t, err)
	if !slices.Equal(names, []string{"f"}) || !bytes.Equal(got, content) {
		t.Errorf("something was changed: the directory holds %v, the file %d bytes", names, len(got))
	}
}

func TestMissingAndExistingFilesAreErrors(t *testing.T) {
	dir := t.TempDir()
	name, missing := filepath.Join(dir, "f"), filepath.Join(dir, "missing")
	must(t, create(t, name, nil).Close())
	var o disk.OS
	_, err := o.Create(name)
	wantErr(t, "Create of an existing file", err, fs.ErrExist)
	_, err = o.Open(missing)
	wantErr(t, "Open", err, fs.ErrNotExist)
	_, err = o.ReadDir(missing)
	wantErr(t, "ReadDir", err, fs.ErrNotExist)
	wantErr(t, "Remove", o.Remove(missing), fs.ErrNotExist)
	wantErr(t, "Rename", o.Rename(missing, name), fs.ErrNotExist)
	wantErr(t, "SyncDir", o.SyncDir(missing), fs.ErrNotExist)
}

// A closed file's descriptor is the next file's: a sync through it would say
// that something is durable that never was synced.
func TestClosedFilesAndMappingsAreRefused(t *testing.T) {
	dir := t.TempDir()
	f := create(t, filepath.Join(dir, "f"), make([]byte, page))
	m, err := f.Map(0, page)
	must(t, err)
	must(t, f.Close())
	m.Store(0, []byte("x")) // a mapping outlives its file
	must(t, m.Sync())
	must(t, m.Close())
	next := filepath.Join(dir, "next")
	create(t, next, []byte("y"))

	wantErr(t, "Sync", f.Sync(), os.ErrClosed)
	wantErr(t, "Allocate", f.Allocate(0, page), os.ErrClosed)
	wantErr(t, "Truncate", f.Truncate(0), os.ErrClosed)
	_, err = f.WriteAt([]byte("z"), 0)
	wantErr(t, "WriteAt", err, os.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, "ReadAt", err, os.ErrClosed)
	wantErr(t, "Close", f.Close(), os.ErrClosed)
	wantErr(t, "mapping's Sync", m.Sync(), os.ErrClosed)
	wantErr(t, "mapping's Close", m.Close(), os.ErrClosed)
	if got, err := os.ReadFile(next); err != nil || string(got) != "y" {
		t.Errorf("the file that was opened next holds %q, %v", got, err)
	}
}

// A sync that is not made says success too. So each is asked for what the kernel
// cannot sync, and must come back with the kernel's own error.
func TestEverySyncIsMade(t *testing.T) {
	var o disk.OS
	f, err := o.Open("/dev/null")
	must(t, err)
	wantErr(t, "Sync of a device", f.Sync(), syscall.EINVAL)
	must(t, f.Close())
	wantErr(t, "SyncDir of a directory that is on no disk", o.SyncDir("/proc"), syscall.EINVAL)

	m, err := create(t, filepath.Join(t.TempDir(), "f"), make([]byte, page)).Map(0, page)
	must(t, err)
	// Never closed: the address may be another's by then.
	must(t, unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.Bytes())), page))
	wantErr(t, "Sync of a mapping that is gone", m.Sync(), syscall.ENOMEM)
}

func TestALockIsHeldByOneAtATime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	first, err := disk.OS{}.Lock(name, "the first")
	must(t, err)
	for _, readOnly := range []bool{false, true} {
		var locked *disk.LockedError
		if _, err := (disk.OS{ReadOnly: readOnly}).Lock(name, "the second"); !errors.As(err, &locked) || locked.By != "the first" {
			t.Errorf("read-only %v: error %v, want that the first has it", readOnly, err)
		}
	}
	must(t, first.Close())
	second, err := disk.OS{}.Lock(name, "the second")
	must(t, err)
	must(t, second.Close())
}

func TestIsFullKnowsAFullDiskAndAFullQuota(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}: true,
		fmt.Errorf("segment 2: %w", syscall.EDQUOT):                true,
		&os.PathError{Op: "write", Path: "f", Err: syscall.EIO}:    false,
	} {
		if disk.IsFull(err) != want {
			t.Errorf("IsFull(%v) is %v", err, !want)
		}
	}
}

// A page that cannot be written is an error, as where the file was cut under its
// mapping: the kernel signals SIGBUS for both.
func TestAStoreThatFaultsIsAnError(t *testing.T) {
	f, err := disk.OS{}.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Allocate(0, page); err != nil {
		t.Fatal(err)
	}
	m, err := f.Map(0, page)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Store(0, []byte("x")); err != nil {
		t.Error(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := m.Store(0, []byte("x")); err == nil {
		t.Error("a store into a page that is gone succeeds")
	}
	if err := errors.Join(m.Close(), f.Close()); err != nil {
		t.Error(err)
	}
}
