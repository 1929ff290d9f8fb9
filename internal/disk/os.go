package disk

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// OS is the operating system's file system.
type OS struct {
	// ReadOnly opens files for reading and refuses whatever would change one.
	ReadOnly bool
}

// ErrReadOnly is returned when something would be changed through a read-only OS.
var ErrReadOnly = errors.New("opened for reading only")

// zeros is what Allocate writes, a piece at a time.
var zeros [1 << 20]byte

func (o OS) MkdirAll(dir string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "mkdir", Path: dir, Err: ErrReadOnly}
	}
	return os.MkdirAll(dir, 0o750)
}

func (o OS) Open(name string) (File, error) {
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	return o.open(name, flag)
}

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
	return &osFile{f: f, fd: int(f.Fd()), readOnly: o.ReadOnly}, nil
}

func (o OS) Rename(from, to string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "rename", Path: from, Err: ErrReadOnly}
	}
	return os.Rename(from, to)
}

func (o OS) Remove(name string) error {
	if o.ReadOnly {
		return &os.PathError{Op: "remove", Path: name, Err: ErrReadOnly}
	}
	return os.Remove(name)
}

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

// osFile keeps the *os.File beside its descriptor: the finalizer of a collected
// os.File closes the descriptor, and every later sync would fail.
type osFile struct {
	f        *os.File
	fd       int
	readOnly bool
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }
func (o *osFile) Truncate(size int64) error                { return o.f.Truncate(size) }
func (o *osFile) Close() error                             { return o.f.Close() }

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (o *osFile) Allocate(off, n int64) error {
	// fallocate says at once whether there is room. Its blocks are marked as
	// unwritten, and the first sync after a write to one of them would commit
	// metadata, so they are written as well. A file system without fallocate
	// gets only the zeros.
	err := o.retry(func() error { return unix.Fallocate(o.fd, 0, off, n) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return &os.PathError{Op: "allocate", Path: o.f.Name(), Err: err}
	}
	for end := off + n; off < end; {
		w, err := o.f.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(w)
	}
	return nil
}

func (o *osFile) Sync() error {
	if err := o.retry(func() error { return unix.Fdatasync(o.fd) }); err != nil {
		return &os.PathError{Op: "fdatasync", Path: o.f.Name(), Err: err}
	}
	return nil
}

// retry repeats a call that a signal interrupted.
func (o *osFile) retry(call func() error) error {
	defer runtime.KeepAlive(o.f)
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (o *osFile) Map(off int64, n int) (Mapping, error) {
	if size, err := o.Size(); err != nil {
		return nil, err
	} else if off+int64(n) > size {
		return nil, fmt.Errorf("map %s: %d bytes at %d, but the file has %d", o.f.Name(), n, off, size)
	}
	prot := mmap.RDWR
	if o.readOnly {
		prot = mmap.RDONLY
	}
	m, err := mmap.MapRegion(o.f, n, prot, 0, off)
	if err != nil {
		return nil, &os.PathError{Op: "map", Path: o.f.Name(), Err: err}
	}
	return &osMapping{m: m, name: o.f.Name()}, nil
}

type osMapping struct {
	m    mmap.MMap
	name string
}

func (m *osMapping) Bytes() []byte           { return m.m }
func (m *osMapping) Store(off int, p []byte) { copy(m.m[off:off+len(p)], p) }

func (m *osMapping) Sync() error {
	if err := m.m.Flush(); err != nil {
		return &os.PathError{Op: "msync", Path: m.name, Err: err}
	}
	return nil
}

func (m *osMapping) Close() error {
	if err := m.m.Unmap(); err != nil {
		return &os.PathError{Op: "munmap", Path: m.name, Err: err}
	}
	return nil
}
