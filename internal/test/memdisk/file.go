package memdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"clouddragon/internal/disk"
)

// file is an open file.
type file struct {
	fs     *FS
	ino    *inode
	name   string
	closed bool
}

// check returns an error for a call on a closed file or at an impossible offset.
func (f *file) check(off, n int64) error {
	switch {
	case f.closed:
		return os.ErrClosed
	case off < 0 || n < 0 || off+n < off:
		return syscall.EINVAL
	}
	return nil
}

func (f *file) op(k Kind, off, n int64) Op { return Op{Kind: k, Name: f.name, Off: off, Len: n} }

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	eof := false
	err = f.fs.run(f.op(Read, off, int64(len(p))), func(*entry) error {
		if err := f.check(off, int64(len(p))); err != nil {
			return err
		}
		if rest := max(0, f.ino.size-off); int64(len(p)) > rest {
			p, eof = p[:rest], true
		}
		f.ino.read(p, off)
		n = len(p)
		return nil
	})
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fs.try(f.op(Write, off, int64(len(p))), func(e *entry, fault error) error {
		if err := f.check(off, int64(len(p))); err != nil {
			return err
		}
		err := f.write(e, p, fault)
		n = int(e.Len)
		return err
	})
	return n, err
}

func (f *file) write(e *entry, p []byte, fault error) error {
	err := f.extend(e, fault)
	if p = p[:e.Len]; len(p) > 0 {
		f.ino.write(p, e.Off)
		e.data = bytes.Clone(p)
		f.fs.record(e, f.ino)
	}
	return err
}

func (f *file) Allocate(off, n int64) error {
	return f.fs.try(f.op(Allocate, off, n), func(e *entry, fault error) error {
		if err := f.check(off, n-1); err != nil {
			return err
		}
		err := f.extend(e, fault)
		if e.Len > 0 {
			f.ino.clear(off, off+e.Len)
			f.fs.record(e, f.ino)
		}
		return err
	})
}

// Reserve does the same as Allocate: how a block is reserved makes no difference here.
func (f *file) Reserve(off, n int64) error { return f.Allocate(off, n) }

// Unshare does nothing: no blocks are shared here.
func (f *file) Unshare() error { return nil }

// Holds syncs the file, and then looks at what a power cut would leave of it.
func (f *file) Holds(p []byte, off int64) (bool, error) {
	if err := f.Sync(); err != nil {
		return false, err
	}
	b, err := f.fs.Cut(f.fs.Len()).Nothing().ReadFile(f.name)
	if err != nil || off+int64(len(p)) > int64(len(b)) {
		return false, err
	}
	return bytes.Equal(b[off:][:len(p)], p), nil
}

// extend makes the file long enough for a write, and shortens the write if a fault or the lack
// of room demands it.
func (f *file) extend(e *entry, fault error) error {
	if s := (*short)(nil); errors.As(fault, &s) {
		e.Len, fault = min(e.Len, max(0, s.n)), s.err
	} else if fault != nil {
		e.Len = 0
	}
	size, end := f.ino.size, e.Off+e.Len
	if e.Len == 0 || end <= size {
		return fault
	}
	if limit := max(size, size+f.fs.room-f.fs.used); f.fs.room >= 0 && end > limit {
		end, fault = limit, syscall.ENOSPC
		e.Len = max(0, end-e.Off)
	}
	if e.Len > 0 {
		f.resize(end)
	}
	return fault
}

func (f *file) resize(size int64) {
	f.fs.used += size - f.ino.size
	f.ino.resize(size)
}

func (f *file) Truncate(size int64) error {
	return f.fs.run(f.op(Truncate, size, 0), func(e *entry) error {
		if err := f.check(size, 0); err != nil {
			return err
		}
		return f.truncate(e)
	})
}

func (f *file) truncate(e *entry) error {
	size := e.Off
	if more := size - f.ino.size; more > 0 && f.fs.room >= 0 && more > f.fs.room-f.fs.used {
		return syscall.ENOSPC
	}
	for _, m := range f.ino.mappings {
		if m.off()+int64(len(m.bytes)) > size {
			panic(fmt.Sprintf("memdisk: %s is cut to %d bytes under a mapping of %d at %d: an access there is a SIGBUS",
				f.name, size, len(m.bytes), m.off()))
		}
	}
	f.resize(size)
	f.fs.record(e, f.ino)
	return nil
}

func (f *file) Size() (size int64, err error) {
	err = f.fs.run(f.op(Size, 0, 0), func(*entry) error {
		size = f.ino.size
		return f.check(0, 0)
	})
	return size, err
}

func (f *file) Sync() error {
	return f.fs.try(f.op(Sync, 0, 0), func(e *entry, fault error) error {
		if err := f.check(0, 0); err != nil {
			return err
		}
		e.Err = fault
		f.fs.record(e, f.ino)
		return fault
	})
}

// Close closes the file even if it returns an error, as Linux does.
func (f *file) Close() error {
	return f.fs.try(f.op(Close, 0, 0), func(_ *entry, fault error) error {
		if err := f.check(0, 0); err != nil {
			return err
		}
		f.closed = true
		f.fs.close(f.ino)
		return fault
	})
}

func (fs *FS) close(n *inode) {
	n.opens--
	fs.handles--
	fs.release(n)
}

func (f *file) Map(off int64, n int) (m disk.Mapping, err error) {
	err = f.fs.run(f.op(Map, off, int64(n)), func(*entry) error {
		if err := f.check(off, int64(n)); err != nil {
			return err
		}
		if n == 0 || off%pageSize != 0 {
			return syscall.EINVAL
		}
		if size := f.ino.size; off+int64(n) > size {
			return fmt.Errorf("%d bytes at %d, but the file has %d", n, off, size)
		}
		b, err := f.ino.mapped(int(off/pageSize), n)
		if err != nil {
			return err
		}
		mm := &mapping{fs: f.fs, ino: f.ino, name: f.name, first: int(off / pageSize), bytes: b}
		f.ino.mappings = append(f.ino.mappings, mm)
		f.ino.opens++
		f.fs.handles++
		m = mm
		return nil
	})
	return m, err
}
