package wal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/internal/disk"
)

var (
	// ErrFailed is returned when a write or a sync of the log has failed, by that call
	// and every later one. What the disk has of the batch is unknown until the log is
	// opened again.
	ErrFailed = errors.New("the log's disk failed")
	// ErrFull is returned when the disk had no room for the batch although the segment
	// had, for example because a copy shares its blocks. Nothing of the batch is in the
	// log, and the same call works once the disk has room.
	ErrFull = errors.New("the disk has no room for a batch of the log")
	// ErrNoRoom is returned when a batch does not fit into the segment, and there is no
	// next one or it does not fit there either. Nothing was written. Call Prepare.
	ErrNoRoom = errors.New("no room in the log")
	// ErrClosed is returned when the log was closed.
	ErrClosed = errors.New("the log is closed")
)

// Pos is the end of a batch, where the next one begins. The zero Pos comes before every
// other.
type Pos struct {
	Segment uint64
	Offset  int64  // in bytes
	Seq     uint64 // number of the batch before it, 0 if there is none
	Sum     uint32 // checksum of that batch, to which the next one chains
}

// StartsSegment reports whether no batch of its segment is before p. The batch before it, if
// there is one, is the seal of the segment before: it has no records to apply.
func (p Pos) StartsSegment() bool { return p.Offset == pageSize }

// Options say where a log is and how its segments are made.
type Options struct {
	FS  disk.FS
	Dir string   // holds the segments and nothing else
	ID  [16]byte // of the data directory
	// Segment is the size of a new segment in bytes: a multiple of 4096 from
	// MinSegment to MaxSegment; 0 means DefaultSegment.
	Segment int64
	// Least is the least size of a new segment in bytes; the largest batch must fit into
	// it. Segments are made smaller than Segment if the disk has no room for eight of that
	// size. 0: never.
	Least int64
	// Files is how many segment files may be open for reading at a time, in addition to
	// those that are written to; 0 means 32. It is exceeded while more files are being
	// read at once.
	Files int
	Log   *slog.Logger // gets a message if Repair cuts a torn tail; may be nil
	// Read, if not nil, is called with the size of each batch that recovery or Verify has
	// read. It must not block.
	Read func(bytes int64)

	files *files
}

func (o Options) withDefaults() (Options, error) {
	if o.Segment == 0 {
		o.Segment = DefaultSegment
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Read == nil {
		o.Read = func(int64) {}
	}
	if o.Files == 0 {
		o.Files = defaultFiles
	}
	o.files = &files{fs: o.FS, max: o.Files}
	return o, checkSize(o.Segment)
}

// Log is an open log. Open returns it; then Replay, Repair and Start are called,
// each once and in this order, before anything can be appended.
type Log struct {
	o     Options
	codec codec
	from  Pos // where Replay begins

	// Used by recovery only.
	recovered int      // the last step that was done
	outdated  []uint64 // segments that an earlier Free was to remove

	// Owned by the single writer.
	end  Pos   // where the next batch goes
	err  error // why nothing can be appended: before Start, after a failed write, after Close
	seal Batch
	left int64 // bytes of a batch that found no room lie from end to this offset; 0: none

	appended atomic.Uint64 // bytes
	grown    atomic.Uint64 // see Grown

	// dir is held while files are made or removed.
	dir sync.Mutex
	// mu guards what follows; held for a moment, never during I/O.
	mu       sync.Mutex
	segments []*Segment // ascending by number
	active   *Segment   // takes the next batch; changed only by the writer
	next     *Segment   // ready to follow active, or nil
	reserved int64      // size in bytes of the reserve, or 0; see reserve.go
	bytes    int64      // size of all segments
	failed   error      // err, for other goroutines
	closed   bool
	durable  Pos           // after the last durable batch
	progress chan struct{} // closed when one of the three above changes; nil if no reader waits
	pins     map[*Pin]bool
}

// Create makes the directory and an empty log in it, durable when it returns. It
// replaces what an interrupted Create left there. It returns the position of the first
// batch, or an error that is fs.ErrExist if the directory has a log that was written to.
func Create(o Options) (Pos, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Pos{}, err
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return Pos{}, err
	}
	numbers, err := o.list()
	if err != nil {
		return Pos{}, err
	}
	for _, n := range numbers {
		if err := o.checkUnused(n); err != nil {
			return Pos{}, err
		}
	}
	size, err := o.fit(0)
	if err != nil {
		return Pos{}, err
	}
	s, err := o.createSegment(1, size, false)
	if err != nil {
		return Pos{}, err
	}
	if err := errors.Join(s.file.Close(), o.FS.SyncDir(path.Dir(o.Dir))); err != nil {
		return Pos{}, err
	}
	return Pos{Segment: 1, Offset: pageSize}, nil
}

// checkUnused returns an error unless an interrupted Create can have left this segment:
// it is the first one, and nothing follows its header.
func (o Options) checkUnused(number uint64) error {
	used := fmt.Errorf("%s is part of an existing log, move it away to make a new one: %w", o.path(number), fs.ErrExist)
	if number != 1 {
		return used
	}
	s, err := o.openSegment(number)
	if err != nil {
		return err
	}
	left, err := codec{}.scan(s, pageSize, 0, false)
	if err == nil && left.to > 0 {
		err = used
	}
	return errors.Join(err, s.file.Close())
}

// Room returns how many bytes the next batch may take, including its header: in this
// segment or, if that is more, in the next one if it is ready. With all set it includes
// what is held back on a full disk; see reserve.go. Only the writer calls it.
func (l *Log) Room(all bool) int {
	l.mu.Lock()
	next, reserved, alone := l.next, l.reserved, l.segments[0] == l.active
	l.mu.Unlock()
	here, behind := l.active.room(l.end.Offset), int64(0)
	if next != nil {
		behind = next.room(pageSize)
	}
	switch {
	case all, reserved > 0:
	case next != nil || alone:
		here, behind = here-l.active.reserve(), 0
	default:
		here = 0
	}
	return int(max(here, behind, 0))
}

// ready returns the segment that follows the active one, nil if there is none. Any
// goroutine may call it.
func (l *Log) ready() *Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Append writes the batch to the end of the log, in the next segment if it does not
// fit into this one, and returns the position after it once it is durable. The
// batch can then be reset and filled again. An empty batch writes nothing. After
// ErrNoRoom nothing was written, and Prepare is needed. After ErrFull the disk needs
// room first. ErrFailed and ErrClosed are final. Only the single writer calls it.
func (l *Log) Append(b *Batch) (Pos, error) {
	if l.err != nil {
		return Pos{}, l.err
	}
	if b.count == 0 {
		return l.end, nil
	}
	n := int64(b.Len())
	if fits := n <= l.active.room(l.end.Offset); !fits || b.first {
		if err := l.roll(n); err != nil && !(fits && errors.Is(err, ErrNoRoom)) {
			return Pos{}, err
		}
	}
	if err := l.write(b); err != nil {
		return Pos{}, err
	}
	l.mu.Lock()
	l.publish(l.end)
	l.mu.Unlock()
	return l.end, nil
}

// roll seals the segment and continues in the next one, which must have room for n
// bytes.
func (l *Log) roll(n int64) error {
	next := l.ready()
	if next == nil {
		return fmt.Errorf("batch of %d bytes, segment %d has room for %d and there is no next one: %w",
			n, l.active.number, l.active.room(l.end.Offset), ErrNoRoom)
	}
	if room := next.room(pageSize); n > room {
		return fmt.Errorf("batch of %d bytes, segment %d has room for %d and the next one for %d: %w",
			n, l.active.number, l.active.room(l.end.Offset), room, ErrNoRoom)
	}
	l.seal.Reset()
	binary.LittleEndian.PutUint64(l.seal.add(typeSeal, sealBody), next.number)
	if err := l.write(&l.seal); err != nil {
		return err
	}
	l.active.file.settled()
	l.active.used.Store(l.end.Offset)
	l.end.Segment, l.end.Offset = next.number, pageSize
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active, l.next = next, nil
	l.publish(l.end)
	return nil
}

// write writes the batch to the end of the segment and syncs it. It never touches
// bytes that were synced before. full.go explains what happens on a full disk.
func (l *Log) write(b *Batch) error {
	if err := l.clearLeft(); err != nil {
		return err
	}
	sum := l.codec.putHeader(b.buf, b.count, l.end)
	n, err := l.active.file.WriteAt(b.buf, l.end.Offset)
	if disk.IsFull(err) {
		return l.takeBack(b.buf, n, err)
	}
	if err == nil {
		err = l.active.file.Sync()
	}
	if err != nil {
		return l.fail(err)
	}
	l.end.Offset += int64(len(b.buf))
	l.end.Seq++
	l.end.Sum = sum
	l.appended.Add(uint64(len(b.buf)))
	return nil
}

// fail makes err final. After a failed sync the kernel may have dropped the pages and
// marked them clean. A second sync would succeed without writing them, so it is not tried.
func (l *Log) fail(err error) error {
	l.err = fmt.Errorf("%w: batch %d at offset %d of %s: %w", ErrFailed, l.end.Seq+1, l.end.Offset, l.active.path, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = l.err
	l.wakeReaders()
	return l.err
}

// Segments returns the numbers of all segments, ascending, including a next one that is
// ready. Any goroutine may call it.
func (l *Log) Segments() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	numbers := make([]uint64, len(l.segments))
	for i, s := range l.segments {
		numbers[i] = s.number
	}
	return numbers
}

// Segment returns a segment by its number, nil if there is none. Any goroutine may
// call it. Reading the segment is safe until Free removes it.
func (l *Log) Segment(number uint64) *Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(number)
}

// SegmentSizes returns the sizes in bytes of all segments and of the one that Prepare
// makes next.
func (l *Log) SegmentSizes() []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sizes := []int64{l.o.Segment}
	for _, s := range l.segments {
		sizes = append(sizes, s.size)
	}
	return sizes
}

// ID returns the ID of the data directory that the log belongs to.
func (l *Log) ID() [16]byte { return l.o.ID }

// Checkpoint returns the position that was passed to Open: Replay begins there.
func (l *Log) Checkpoint() Pos { return l.from }

// Stats are figures of a log.
type Stats struct {
	Segments int
	Bytes    int64  // size on disk of all segments and the reserve
	Appended uint64 // bytes appended since Start
}

// Stats returns the current figures. Any goroutine may call it.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Segments: len(l.segments), Bytes: l.bytes, Appended: l.appended.Load()}
	s.Bytes += l.reserved
	return s
}

// Close closes the segments' files and ends the readers. Everything that was appended is
// already durable. The writer must have stopped. A second Close does nothing.
func (l *Log) Close() error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.err, l.failed = ErrClosed, ErrClosed
	l.wakeReaders()
	var errs []error
	for _, s := range l.segments {
		if s.file != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(append(errs, l.o.files.close())...)
}

// find returns a segment by its number, nil if there is none. Except in recovery,
// mu must be held.
func (l *Log) find(number uint64) *Segment {
	i, ok := slices.BinarySearchFunc(l.segments, number, func(s *Segment, n uint64) int { return cmp.Compare(s.number, n) })
	if !ok {
		return nil
	}
	return l.segments[i]
}
