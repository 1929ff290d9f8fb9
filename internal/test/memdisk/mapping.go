package memdisk

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"syscall"
)

// mapping is a part of a file, as one piece of memory that holds the file's own pages.
type mapping struct {
	fs    *FS
	ino   *inode
	name  string
	first int    // page
	bytes []byte // its capacity is whole pages; nil once closed
}

// mapped moves the pages of n bytes, from page first on, into one piece of memory, or finds
// them in that of a mapping that has all of them.
func (n *inode) mapped(first, size int) ([]byte, error) {
	k := pagesOf(int64(size))
	for _, m := range n.mappings {
		at, end := first-m.first, first-m.first+k
		if all := cap(m.bytes) / pageSize; at >= 0 && end <= all {
			return m.bytes[at*pageSize : at*pageSize+size : end*pageSize], nil
		} else if end > 0 && at < all {
			return nil, fmt.Errorf("overlaps the mapping of %d bytes at %d: %w", len(m.bytes), m.off(), syscall.EINVAL)
		}
	}
	b := make([]byte, k*pageSize)
	n.unshare()
	for i := range k {
		p := (*page)(b[i*pageSize:])
		if old := n.pages[first+i]; old != nil {
			*p = *old
		}
		n.pages[first+i], n.own[first+i] = p, true
	}
	return b[:size], nil
}

func (m *mapping) off() int64 { return int64(m.first) * pageSize }

func (m *mapping) op(k Kind, off, n int) Op {
	return Op{Kind: k, Name: m.name, Off: m.off() + int64(off), Len: int64(n)}
}

// Bytes returns nil after Close. It takes no lock, so that the race detector sees what the
// callers do.
func (m *mapping) Bytes() []byte { return m.bytes }

// Store panics after Close and beyond the end. On a frozen disk it changes the memory
// alone.
func (m *mapping) Store(off int, p []byte) error {
	return m.fs.try(m.op(Store, off, len(p)), func(e *entry, fault error) error {
		switch {
		case m.bytes == nil:
			panic(os.ErrClosed)
		case off < 0 || off+len(p) > len(m.bytes):
			panic(fmt.Errorf("%d bytes at %d of a mapping of %d", len(p), off, len(m.bytes)))
		case fault != nil:
			return fault
		}
		copy(m.bytes[off:], p)
		if !m.fs.frozen {
			e.data = bytes.Clone(p)
			m.fs.record(e, m.ino)
		}
		return nil
	})
}

func (m *mapping) Sync() error {
	return m.fs.try(m.op(SyncMap, 0, len(m.bytes)), func(e *entry, fault error) error {
		if m.bytes == nil {
			return os.ErrClosed
		}
		e.Err = fault
		m.fs.record(e, m.ino)
		return fault
	})
}

// Close unmaps even if it fails.
func (m *mapping) Close() error {
	return m.fs.try(m.op(Unmap, 0, len(m.bytes)), func(_ *entry, fault error) error {
		if m.bytes == nil {
			return os.ErrClosed
		}
		m.bytes = nil
		i := slices.Index(m.ino.mappings, m)
		m.ino.mappings = slices.Delete(m.ino.mappings, i, i+1)
		m.fs.close(m.ino)
		return fault
	})
}
