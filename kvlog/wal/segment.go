package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
)

// Part of the file format, never changed.
const (
	segmentMagic   = "cdlogseg"
	segmentVersion = 1
	pageSize       = 4096 // the header of a segment, and the unit of its size
)

// Limits of a segment's size in bytes; it is a multiple of 4096.
const (
	MinSegment     = 2 * pageSize
	MaxSegment     = 1 << 30
	DefaultSegment = 64 << 20
)

// Segment is one file of the log. Its methods may be called by any goroutine.
type Segment struct {
	number uint64
	path   string
	file   *handle      // nil: the segment is missing
	size   int64        // in bytes, as in the header, or of the file if the header is bad
	bad    *disk.Damage // why the segment cannot be used, nil if it can
	used   atomic.Int64 // where the batches of a sealed segment end; 0: not known yet, see Used
	// unmade is set if a crash during the segment's creation can have left it like this:
	// too short, or without a header. Half a header is damage, because a header lies in one
	// sector.
	unmade bool
}

// Number returns the segment's number: 1, 2, 3…
func (s *Segment) Number() uint64 { return s.number }

// Path returns the name of the segment's file.
func (s *Segment) Path() string { return s.path }

// Size returns the size of the segment in bytes, including its header page. No record
// reaches beyond it.
func (s *Segment) Size() int64 { return s.size }

// ReadAt reads from the segment's file. Once Free has removed the segment it
// returns os.ErrClosed.
func (s *Segment) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

// SizeFor returns the size of the smallest segment that has room for n bytes, including
// its header page.
func SizeFor(n int64) int64 { return max(MinSegment, (n+pageSize-1)/pageSize*pageSize) }

// Header returns the header page for a copy of the segment that is truncated to size.
func (s *Segment) Header(size int64) ([]byte, error) {
	p := make([]byte, pageSize)
	if _, err := s.ReadAt(p, 0); err != nil {
		return nil, err
	}
	if size != s.size {
		putSegmentHeader(p, s.number, size, [16]byte(p[32:48]))
	}
	return p, nil
}

// putSegmentHeader fills in the first page of a segment. The file NNNNNNNN.seg is
// named after its number in decimal, of at least 8 digits, and begins with:
//
//	 0  magic     8  "cdlogseg"
//	 8  version   4  1
//	12  checksum  4  of the whole page except these 4 bytes
//	16  number    8  1, 2, 3…
//	24  size      8  bytes of the file, this page included; a multiple of 4096
//	32  ID       16  of the data directory
//	48  zeros, to 4096
//
// Batches follow, each directly after the one before, then zeros. Everything in the page
// that is not zero lies in one sector, so a crash leaves the whole header or none of it.
func putSegmentHeader(p []byte, number uint64, size int64, id [16]byte) {
	le := binary.LittleEndian
	clear(p[:pageSize])
	copy(p, segmentMagic)
	le.PutUint32(p[8:], segmentVersion)
	le.PutUint64(p[16:], number)
	le.PutUint64(p[24:], uint64(size))
	copy(p[32:48], id[:])
	le.PutUint32(p[12:], segmentSum(p))
}

// segmentSum returns the checksum of a header page.
func segmentSum(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:12], format.Castagnoli), format.Castagnoli, p[16:pageSize])
}

// parseSegmentHeader returns the size in bytes that a header page gives its
// segment, or what is wrong with the page.
func parseSegmentHeader(p []byte, number uint64, id [16]byte) (size int64, bad string) {
	le := binary.LittleEndian
	switch {
	case len(p) < pageSize:
		return 0, fmt.Sprintf("the header is cut off: %d bytes of %d", len(p), pageSize)
	case string(p[:8]) != segmentMagic:
		return 0, "the header is not that of a log segment"
	case le.Uint32(p[8:]) != segmentVersion:
		return 0, fmt.Sprintf("format version %d, this program reads version %d", le.Uint32(p[8:]), segmentVersion)
	case le.Uint32(p[12:]) != segmentSum(p):
		return 0, fmt.Sprintf("the header has checksum %08x, its bytes have %08x", le.Uint32(p[12:]), segmentSum(p))
	case le.Uint64(p[16:]) != number:
		return 0, fmt.Sprintf("the header says that this is segment %d, its name says %d", le.Uint64(p[16:]), number)
	case string(p[32:48]) != string(id[:]):
		return 0, fmt.Sprintf("belongs to the data directory with ID %x, this one has %x", p[32:48], id)
	}
	size = int64(le.Uint64(p[24:]))
	if err := checkSize(size); err != nil {
		return 0, err.Error()
	}
	return size, ""
}

func checkSize(size int64) error {
	if size < MinSegment || size > MaxSegment || size%pageSize != 0 {
		return fmt.Errorf("segment size of %d bytes: it must be a multiple of %d from %d to %d", size, pageSize, MinSegment, MaxSegment)
	}
	return nil
}

func segmentName(number uint64) string { return fmt.Sprintf("%08d.seg", number) }

func (o Options) path(number uint64) string { return path.Join(o.Dir, segmentName(number)) }

// list returns the numbers of all segment files in the directory, ascending.
func (o Options) list() ([]uint64, error) {
	names, err := o.FS.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, ".seg")
		n, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && n > 0 && segmentName(n) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// openSegment opens a segment and checks its header and its size; see segment.bad.
// A segment that is missing is bad and has no file.
func (o Options) openSegment(number uint64) (*Segment, error) {
	s := &Segment{number: number, path: o.path(number)}
	f := o.files.handle(s.path)
	length, err := f.Size()
	if errors.Is(err, fs.ErrNotExist) {
		s.bad = s.Damage(0, "is missing", "every batch in it")
		return s, nil
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	page := make([]byte, min(length, pageSize))
	if _, err := f.ReadAt(page, 0); err != nil && err != io.EOF {
		return nil, errors.Join(fmt.Errorf("%s: read the header: %w", s.path, err), f.Close())
	}
	s.file, s.size = f, length
	s.unmade = length < pageSize || allZero(page)
	size, bad := parseSegmentHeader(page, number, o.ID)
	switch {
	case bad != "":
		s.bad = s.Damage(0, bad, "every batch in it")
	case length < size:
		s.unmade = true
		s.bad = s.Damage(length, fmt.Sprintf("the file has %d bytes, its header says %d", length, size), "everything past its end")
	default:
		s.size = size
	}
	return s, nil
}

// createSegment makes a segment of size bytes, durable when it returns. With reserved set
// the file is already there under its name and has the blocks; otherwise a file that a
// crash left there is removed. After an error nothing is left of it.
func (o Options) createSegment(number uint64, size int64, reserved bool) (*Segment, error) {
	s := &Segment{number: number, path: o.path(number), size: size}
	if reserved {
		s.file = o.files.handle(s.path)
		if err := s.file.ready(); err != nil {
			return nil, errors.Join(err, o.FS.Remove(s.path))
		}
	} else if err := o.createFile(s); err != nil {
		return nil, err
	}
	if err := o.fill(s); err != nil {
		return nil, errors.Join(err, s.file.Close(), o.FS.Remove(s.path))
	}
	return s, nil
}

// createFile makes a segment's file.
func (o Options) createFile(s *Segment) error {
	f, err := o.files.create(s.path)
	if errors.Is(err, fs.ErrExist) {
		if err := o.FS.Remove(s.path); err != nil {
			return err
		}
		f, err = o.files.create(s.path)
	}
	s.file = f
	return err
}

func (o Options) fill(s *Segment) error {
	if err := s.file.Allocate(0, s.size); err != nil {
		return err
	}
	if err := o.writeHeader(s); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	return o.FS.SyncDir(o.Dir)
}

func (o Options) writeHeader(s *Segment) error {
	page := make([]byte, pageSize)
	putSegmentHeader(page, s.number, s.size, o.ID)
	_, err := s.file.WriteAt(page, 0)
	return err
}

// room is the size in bytes of the largest batch that fits after offset and leaves room
// for the seal.
func (s *Segment) room(offset int64) int64 { return max(0, s.size-offset-sealSize) }

// reserve is how many bytes of a segment are held back for deletes.
func (s *Segment) reserve() int64 { return s.size / 4 }

// Used returns how many bytes of a sealed segment are used. If that is not known yet, it
// searches for the end: only zeros follow it.
func (s *Segment) Used() (int64, error) {
	if n := s.used.Load(); n > 0 {
		return n - pageSize, nil
	}
	buf := make([]byte, 64<<10)
	end := s.size
	for end > pageSize {
		p := buf[:min(int64(len(buf)), end-pageSize)]
		if _, err := s.file.ReadAt(p, end-int64(len(p))); err != nil {
			return 0, fmt.Errorf("%s: find its end: %w", s.path, err)
		}
		if rest := len(bytes.TrimRight(p, "\x00")); rest > 0 {
			end -= int64(len(p) - rest)
			break
		}
		end -= int64(len(p))
	}
	s.used.Store(end)
	return end - pageSize, nil
}

// Damage returns a damage at an offset in bytes of the segment. Its File is relative to
// the data directory, which contains the log's directory.
func (s *Segment) Damage(offset int64, what, lost string) *disk.Damage {
	dir, name := path.Split(s.path)
	return &disk.Damage{File: path.Join(path.Base(dir), name), Offset: offset, What: what, Lost: lost}
}
