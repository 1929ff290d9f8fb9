package disk

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// OS is the operating system's file system.
type OS struct {
	// ReadOnly opens files for reading and refuses whatever would change one.
	ReadOnly bool
}

// ErrReadOnly is returned when something would be changed through a read-only
// OS; a Store, which returns nothing, panics with it.
var ErrReadOnly = errors.New("opened for reading only")

// zeros is what Allocate writes, a piece at a time: with larger ones the syncs of
// others wait longer, with smaller ones large values are written more slowly.
var zeros [512 << 10]byte

// MkdirAll makes a directory and its parents.
func (o OS) MkdirAll(dir string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "mkdir", Path: dir, Err: ErrReadOnly}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return overwriteInPlace(dir)
}

// Open opens an existing file.
func (o OS) Open(name string) (File, error) {
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	return o.open(name, flag)
}

// Create makes a file, which must not exist yet.
func (o OS) Create(name string) (File, error) {
	if o.ReadOnly {
		return nil, &os.PathError{Op: "create", Path: name, Err: ErrReadOnly}
	}
	return o.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (o OS) open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, readOnly: o.ReadOnly}, nil
}

// Rename puts a file in another's place.
func (o OS) Rename(from, to string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "rename", Path: from, Err: ErrReadOnly}
	}
	return os.Rename(from, to)
}

// Remove deletes a file.
func (o OS) Remove(name string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "remove", Path: name, Err: ErrReadOnly}
	}
	return os.Remove(name)
}

// ReadDir returns the names in a directory, sorted.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir makes a directory's entries durable.
func (o OS) SyncDir(dir string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "sync", Path: dir, Err: ErrReadOnly}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Free returns what the file system has free for a user without privileges.
func (o OS) Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * s.Bsize, nil
}

type osFile struct {
	f        *os.File
	readOnly bool
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) { return o.f.ReadAt(p, off) }
func (o *osFile) Close() error                            { return o.f.Close() }

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	if o.readOnly {
		return 0, o.fail("write", ErrReadOnly)
	}
	return o.f.WriteAt(p, off)
}

func (o *osFile) Truncate(size int64) error {
	if o.readOnly {
		return o.fail("truncate", ErrReadOnly)
	}
	return o.f.Truncate(size)
}

func (o *osFile) fail(op string, err error) error {
	return &os.PathError{Op: op, Path: o.f.Name(), Err: err}
}

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Allocate writes the blocks besides reserving them. Until then they are marked as
// unwritten, and the first sync after a write to one of them would commit metadata.
func (o *osFile) Allocate(off, n int64) error {
	if err := o.fallocate(off, n); err != nil && !noFallocate(err) {
		return err
	}
	return o.zero(off, off+n)
}

// Reserve writes zeros where the file system has no fallocate.
func (o *osFile) Reserve(off, n int64) error {
	err := o.fallocate(off, n)
	if noFallocate(err) {
		err = o.zero(off, off+n)
	}
	return err
}

func (o *osFile) fallocate(off, n int64) error {
	if o.readOnly {
		return o.fail("allocate", ErrReadOnly)
	}
	err := o.call(func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
	if IsFull(err) && o.has(off+n) {
		return nil
	}
	if err != nil {
		return o.fail("allocate", err)
	}
	return nil
}

// has reports whether the file has all its blocks up to an end. XFS and btrfs want
// room for an fallocate also where nothing is to be allocated.
func (o *osFile) has(end int64) bool {
	var st unix.Stat_t
	err := o.call(func(fd int) error { return unix.Fstat(fd, &st) })
	return err == nil && st.Size <= end && st.Blocks*512 >= end
}

func noFallocate(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// zero writes zeros to [off, end), and keeps no more than two pieces of them on
// their way to the disk: the syncs of others would queue behind all of them.
//
// For that it waits through a descriptor of its own: that a page could not be
// written the kernel tells each descriptor once (its documentation calls this
// errseq_t), and a Sync of this file must be told too. Where no descriptor is to
// be had, the zeros go all at once.
func (o *osFile) zero(off, end int64) (err error) {
	side, openErr := os.OpenFile(o.f.Name(), os.O_WRONLY, 0)
	if openErr == nil {
		defer func() { err = errors.Join(err, side.Close()) }()
	}
	for from := off; off < end; {
		w, err := o.f.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(w)
		if openErr != nil {
			continue
		}
		last := max(from, off-2*int64(len(zeros)))
		err = call(side, func(fd int) error {
			return unix.SyncFileRange(fd, last, off-last, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE)
		})
		if err != nil && !errors.Is(err, unix.ENOSYS) {
			return o.fail("sync_file_range", err)
		}
	}
	return nil
}

func (o *osFile) Sync() error {
	if err := o.call(unix.Fdatasync); err != nil {
		return o.fail("fdatasync", err)
	}
	return nil
}

func (o *osFile) call(f func(fd int) error) error { return call(o.f, f) }

// call makes a system call and repeats it where a signal interrupted it. The
// descriptor is asked for each time: that of a file that was closed may be another's.
func call(file *os.File, f func(fd int) error) error {
	defer runtime.KeepAlive(file)
	fd := file.Fd()
	if fd == ^uintptr(0) {
		return os.ErrClosed
	}
	for {
		if err := f(int(fd)); err != unix.EINTR {
			return err
		}
	}
}

func (o *osFile) Map(off int64, n int) (Mapping, error) {
	if size, err := o.Size(); err != nil {
		return nil, err
	} else if off < 0 || n <= 0 || int64(n) > size-off {
		return nil, fmt.Errorf("map %s: %d bytes at %d, but the file has %d", o.f.Name(), n, off, size)
	}
	prot := mmap.RDWR
	if o.readOnly {
		prot = mmap.RDONLY
	}
	m, err := mmap.MapRegion(o.f, n, prot, 0, off)
	if err != nil {
		return nil, o.fail("map", err)
	}
	return &osMapping{m: m, file: o.f, off: off, name: o.f.Name(), readOnly: o.readOnly}, nil
}

type osMapping struct {
	m        mmap.MMap // nil once closed
	file     *os.File  // may be closed
	off      int64     // in it
	name     string
	readOnly bool
}

func (m *osMapping) Bytes() []byte { return m.m }

func (m *osMapping) Store(off int, p []byte) (err error) {
	if m.readOnly {
		panic(&os.PathError{Op: "store", Path: m.name, Err: ErrReadOnly}) // else the kernel ends the process
	}
	if m.copy(off, p) == nil {
		return nil
	}
	// The signal does not tell why; a write to the same place does. If it succeeds,
	// the mapping shows it, since both are the same pages. Beyond the end of a file that
	// was cut a write would succeed, and nobody would see it.
	at := m.off + int64(off)
	if st, err := m.file.Stat(); err != nil || st.Size() < at+int64(len(p)) {
		return errors.Join(err, &os.PathError{Op: "store", Path: m.name, Err: fmt.Errorf("the file does not reach to offset %d: %w", at+int64(len(p)), unix.EFAULT)})
	}
	_, err = m.file.WriteAt(p, at)
	return err
}

// copy stores p at off of the memory. A page that cannot be written is a fault of the
// memory, a SIGBUS, which would end the process; here it is an error.
func (m *osMapping) copy(off int, p []byte) (err error) {
	room := m.m[off : off+len(p)]
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = &os.PathError{Op: "store", Path: m.name, Err: fmt.Errorf("the page at %x of memory cannot be written: %w", p.Addr(), unix.EFAULT)}
		default:
			panic(p)
		}
	}()
	copy(room, p)
	return nil
}

func (m *osMapping) Sync() error {
	if m.m == nil {
		return &os.PathError{Op: "msync", Path: m.name, Err: os.ErrClosed} // msync of nothing succeeds
	}
	for {
		err := m.m.Flush()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR): // a signal came: nothing is known to have failed
			return &os.PathError{Op: "msync", Path: m.name, Err: err}
		}
	}
}

func (m *osMapping) Close() error {
	if m.m == nil {
		return &os.PathError{Op: "munmap", Path: m.name, Err: os.ErrClosed}
	}
	if err := m.m.Unmap(); err != nil {
		return &os.PathError{Op: "munmap", Path: m.name, Err: err}
	}
	return nil
}
