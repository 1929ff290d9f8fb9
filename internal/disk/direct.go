package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directUnit is what the places and lengths of direct reads are multiples of, and the
// address of their memory.
const directUnit = 4096

// directPiece is how much is read at a time, in bytes.
const directPiece = 1 << 20

// Holds syncs the file first, so that what the page cache has and the disk does not is
// only what an earlier sync has lost. Then it reads past the page cache. Some files are
// read through it all the same, such as compressed ones of btrfs, so it is dropped
// before. A file system without direct reads, such as tmpfs, has no disk below it.
func (o *osFile) Holds(p []byte, off int64) (held bool, err error) {
	if err := o.Sync(); err != nil {
		return false, err
	}
	f, err := os.OpenFile(o.f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.Open(o.f.Name())
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := aligned(directPiece + 2*directUnit)
	for len(p) > 0 {
		piece := p[:min(len(p), directPiece)]
		first := off / directUnit * directUnit
		skip := int(off - first)
		room := buf[:(skip+len(piece)+directUnit-1)/directUnit*directUnit]
		err := o.call(func(fd int) error { return unix.Fadvise(fd, first, int64(len(room)), unix.FADV_DONTNEED) })
		if err != nil {
			return false, o.fail("drop pages", err)
		}
		n, err := f.ReadAt(room, first)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n < skip+len(piece) || !bytes.Equal(room[skip:][:len(piece)], piece) {
			return false, nil
		}
		p, off = p[len(piece):], off+int64(len(piece))
	}
	return true, nil
}

// aligned returns memory for direct reads.
func aligned(n int) []byte {
	b := make([]byte, n+directUnit)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (directUnit - 1)
	return b[skip:][:n:n]
}
