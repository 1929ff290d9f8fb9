package names

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"sort"
	"sync/atomic"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
)

// A run is a file of sorted keys, never changed once it is written: blocks, then
// an index of the blocks, then a footer. Numbers are little-endian or varints.
//
// A block:
//
//	entries   each: varint bytes shared with the key before it in the block,
//	          varint 2*bytes that follow, plus 1 if the key is gone; those bytes
//	checksum  4  crc32c of the directory's ID, u64 run, u64 offset of the block, and the entries
//
// The index, for each block:
//
//	varint bytes of the block, its checksum included
//	varint length of a separator, and the separator: no key before the block is that
//	large, and no key in it is smaller
//
// The footer:
//
//	 0  magic       8  "cdnames\n"
//	 8  version     4  1
//	12  ID         16  of the data directory
//	28  run         8  its number
//	36  keys        8
//	44  index       8  its offset
//	52  length      8  of the index, in bytes
//	60  checksum    4  crc32c of the index
//	64  checksum    4  crc32c of the footer so far
const (
	runFormat = "run-%08d"

	// Part of the file format, never changed; sizes are in bytes.
	runMagic   = "cdnames\n"
	runVersion = 1
	footerSize = 68
	blockSum   = 4
)

// maxKey is the longest key, in bytes: an account, an id and two more bytes.
const maxKey = 64 + 255 + 2

var le = binary.LittleEndian

func runName(n uint64) string { return fmt.Sprintf(runFormat, n) }

// run is an open run.
type run struct {
	o      *Options
	number uint64
	file   disk.File
	size   int64
	keys   uint64

	// The index of the blocks, without pointers.
	seps    []byte
	sepEnds []uint32 // of each separator in seps
	offsets []int64  // of each block, and of the end of the last

	refs    atomic.Int32 // held by the index and by readers
	dropped atomic.Bool  // the last release removes the file
}

// runRef is a run's entry in the manifest.
type runRef struct {
	number uint64
	size   int64
}

// openRun opens a run and reads its index.
func openRun(o *Options, ref runRef) (_ *run, err error) {
	f, err := o.FS.Open(path.Join(o.Dir, runName(ref.number)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r := &run{o: o, number: ref.number, file: f, size: ref.size}
	r.refs.Store(1)
	if err := r.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrDamaged, runName(ref.number), err), f.Close())
	}
	return r, nil
}

func (r *run) load() error {
	if size, err := r.file.Size(); err != nil {
		return err
	} else if size != r.size || size < footerSize {
		return fmt.Errorf("it has %d bytes, want %d", size, r.size)
	}
	b := make([]byte, footerSize)
	if _, err := r.file.ReadAt(b, r.size-footerSize); err != nil {
		return err
	}
	index, length := int64(le.Uint64(b[44:])), int64(le.Uint64(b[52:]))
	switch {
	case string(b[:8]) != runMagic || le.Uint32(b[8:]) != runVersion:
		return errors.New("it is not a run of this format version")
	case crc32.Checksum(b[:64], format.Castagnoli) != le.Uint32(b[64:]):
		return errors.New("its footer fails its checksum")
	case string(b[12:28]) != string(r.o.ID[:]) || le.Uint64(b[28:]) != r.number:
		return errors.New("it belongs to another directory or is another run")
	case index < 0 || length < 0 || index+length != r.size-footerSize:
		return errors.New("its index does not end where its footer begins")
	}
	r.keys = le.Uint64(b[36:])
	all := make([]byte, length)
	if length > 0 {
		if _, err := r.file.ReadAt(all, index); err != nil {
			return err
		}
	}
	if crc32.Checksum(all, format.Castagnoli) != le.Uint32(b[60:]) {
		return errors.New("its index fails its checksum")
	}
	return r.blocks(all, index)
}

// blocks decodes the index. end is where the blocks end.
func (r *run) blocks(b []byte, end int64) error {
	r.offsets = append(r.offsets, 0)
	at := int64(0)
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 {
			return errors.New("its index is malformed")
		}
		b = b[n:]
		sep, n := binary.Uvarint(b)
		if n <= 0 || sep > maxKey || uint64(len(b)-n) < sep || size > uint64(end) {
			return errors.New("its index is malformed")
		}
		r.seps = append(r.seps, b[n:n+int(sep)]...)
		r.sepEnds = append(r.sepEnds, uint32(len(r.seps)))
		b = b[n+int(sep):]
		at += int64(size)
		r.offsets = append(r.offsets, at)
	}
	if at != end {
		return fmt.Errorf("its blocks end at %d, want %d", at, end)
	}
	return nil
}

func (r *run) bytes() int64 {
	return int64(cap(r.seps) + 4*cap(r.sepEnds) + 8*cap(r.offsets))
}

func (r *run) sep(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = r.sepEnds[i-1]
	}
	return r.seps[from:r.sepEnds[i]]
}

// release gives a reference back.
func (r *run) release() error {
	if r.refs.Add(-1) > 0 {
		return nil
	}
	err := r.file.Close()
	if r.dropped.Load() {
		err = errors.Join(err, r.o.FS.Remove(path.Join(r.o.Dir, runName(r.number))))
	}
	return err
}

// seek returns a source of the run's entries, starting with the first one not less than key.
func (r *run) seek(key string) (*cursor, error) {
	i := sort.Search(len(r.sepEnds), func(i int) bool { return string(r.sep(i)) > key })
	c := &cursor{r: r, block: max(0, i-1) - 1}
	if err := c.next(); err != nil {
		return nil, err
	}
	for c.ok && string(c.key) < key {
		if err := c.advance(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// cursor is a place in a run.
type cursor struct {
	r       *run
	block   int
	rest    []byte // what follows in the block
	key     []byte // of the current entry
	gone    bool
	ok      bool  // there is a current entry
	current entry // that entry as returned by entry; its key is empty until then
	buf     []byte
}

// next begins the next block, if there is one.
func (c *cursor) next() error {
	c.block++
	if c.block >= len(c.r.sepEnds) {
		c.ok = false
		return nil
	}
	off, end := c.r.offsets[c.block], c.r.offsets[c.block+1]
	if int64(cap(c.buf)) < end-off {
		c.buf = make([]byte, end-off)
	}
	b := c.buf[:end-off]
	if _, err := c.r.file.ReadAt(b, off); err != nil {
		return c.damaged(err)
	}
	if len(b) <= blockSum {
		return c.damaged(errors.New("a block is empty"))
	}
	body := b[:len(b)-blockSum]
	if sumBlock(c.r.o.ID, c.r.number, off, body) != le.Uint32(b[len(body):]) {
		return c.damaged(fmt.Errorf("the block at offset %d fails its checksum", off))
	}
	c.rest, c.key = body, c.key[:0]
	return c.advance()
}

func (c *cursor) damaged(err error) error {
	if disk.IsNoDescriptor(err) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, runName(c.r.number), err)
}

func sumBlock(id [16]byte, run uint64, off int64, body []byte) uint32 {
	var b [32]byte
	copy(b[:], id[:])
	le.PutUint64(b[16:], run)
	le.PutUint64(b[24:], uint64(off))
	return crc32.Update(crc32.Checksum(b[:], format.Castagnoli), format.Castagnoli, body)
}

func (c *cursor) entry() (entry, bool) {
	if c.ok && c.current.key == "" {
		c.current = entry{string(c.key), c.gone}
	}
	return c.current, c.ok
}

// advance decodes the next entry.
func (c *cursor) advance() error {
	if len(c.rest) == 0 {
		return c.next()
	}
	shared, n := binary.Uvarint(c.rest)
	if n <= 0 || shared > uint64(len(c.key)) {
		return c.damaged(errors.New("a block is malformed"))
	}
	more, k := binary.Uvarint(c.rest[n:])
	size := int(more >> 1)
	if k <= 0 || more>>1 > maxKey || len(c.rest)-n-k < size {
		return c.damaged(errors.New("a block is malformed"))
	}
	c.key = append(c.key[:shared], c.rest[n+k:][:size]...)
	c.rest = c.rest[n+k+size:]
	c.current, c.gone, c.ok = entry{}, more&1 == 1, true
	return nil
}

func (c *cursor) close() { c.ok = false }

// runWriter writes a run.
type runWriter struct {
	o      *Options
	number uint64
	file   disk.File
	off    int64 // of the block that is being collected
	block  []byte
	index  []byte
	sep    []byte // of that block
	last   []byte // the key before
	keys   uint64

	inBlock int // keys of the block
}

// blockKeys is the largest number of keys in a block. It is small because each page
// decodes, on average, half a block of each run that it does not need.
const blockKeys = 256

func createRun(o *Options, number uint64) (*runWriter, error) {
	f, err := o.FS.Create(path.Join(o.Dir, runName(number)))
	if err != nil {
		return nil, err
	}
	return &runWriter{o: o, number: number, file: f}, nil
}

// add adds the next entry.
func (w *runWriter) add(e entry) error {
	shared := 0
	if len(w.block) == 0 {
		// The shortest prefix of the key that is larger than the key before.
		n := commonPrefix(w.last, e.key)
		w.sep = append(w.sep[:0], e.key[:min(n+1, len(e.key))]...)
	} else {
		shared = commonPrefix(w.last, e.key)
	}
	rest := e.key[shared:]
	flag := uint64(0)
	if e.gone {
		flag = 1
	}
	w.block = binary.AppendUvarint(w.block, uint64(shared))
	w.block = binary.AppendUvarint(w.block, uint64(len(rest))<<1|flag)
	w.block = append(w.block, rest...)
	w.last = append(w.last[:0], e.key...)
	w.keys++
	w.inBlock++
	if len(w.block) >= w.o.Block || w.inBlock == blockKeys {
		return w.flush()
	}
	return nil
}

func commonPrefix(a []byte, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// flush writes the block.
func (w *runWriter) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	w.block = le.AppendUint32(w.block, sumBlock(w.o.ID, w.number, w.off, w.block))
	if _, err := w.file.WriteAt(w.block, w.off); err != nil {
		return err
	}
	w.index = binary.AppendUvarint(w.index, uint64(len(w.block)))
	w.index = binary.AppendUvarint(w.index, uint64(len(w.sep)))
	w.index = append(w.index, w.sep...)
	w.off += int64(len(w.block))
	w.block, w.inBlock = w.block[:0], 0
	return nil
}

// finish writes the index and the footer, syncs, and returns the run, opened.
func (w *runWriter) finish() (*run, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	b := append(w.index, runMagic...)
	b = le.AppendUint32(b, runVersion)
	b = append(b, w.o.ID[:]...)
	b = le.AppendUint64(b, w.number)
	b = le.AppendUint64(b, w.keys)
	b = le.AppendUint64(b, uint64(w.off))
	b = le.AppendUint64(b, uint64(len(w.index)))
	b = le.AppendUint32(b, crc32.Checksum(b[:len(w.index)], format.Castagnoli))
	b = le.AppendUint32(b, crc32.Checksum(b[len(w.index):], format.Castagnoli))
	if _, err := w.file.WriteAt(b, w.off); err != nil {
		return nil, err
	}
	if err := w.file.Sync(); err != nil {
		return nil, err
	}
	r := &run{o: w.o, number: w.number, file: w.file, size: w.off + int64(len(b)), keys: w.keys}
	r.refs.Store(1)
	if err := r.blocks(w.index, w.off); err != nil {
		return nil, err
	}
	r.seps, r.sepEnds, r.offsets = clip(r.seps), clip(r.sepEnds), clip(r.offsets)
	return r, nil
}

// clip returns a copy of s without spare capacity.
func clip[T any](s []T) []T { return append(make([]T, 0, len(s)), s...) }

// abandon closes and removes the unfinished file.
func (w *runWriter) abandon() error {
	return errors.Join(w.file.Close(), w.o.FS.Remove(path.Join(w.o.Dir, runName(w.number))))
}
