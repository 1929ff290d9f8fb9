package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"time"

	"clouddragon/internal/archive"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// A backup has the data directory as a crash at one moment would have left it. It is made
// while the writer continues:
//
//	hold checkpoints up: take the last one, pin its segments of the log, open the index
//	copy CHECKPOINT as it was then, and the tables as their files are now
//	the end of the log is the moment of the copy
//	copy the index and the segments up to that end, giving up each one that is copied
//	end with the manifest
//
// The tables are read while the writer stores into them, so the copy of a slot may be torn or
// newer than its neighbour. It does not matter: a slot that is stored to after the checkpoint
// has its image in the log after the checkpoint, and every store that the copy can contain is
// in the log before its end, which is read after the tables. A start replays those images over
// the tables. A slot that was not stored to since the checkpoint is whole. Slots above the
// checkpoint's high-water marks come from the log alone.

var (
	// ErrBackups is returned when the limit of concurrent backups is reached.
	ErrBackups = errors.New("too many backups are under way: try again later")
	// ErrBackupHold ends a backup that is too slow: the log that is kept for it has become too
	// large.
	ErrBackupHold = errors.New("the backup is too slow: the log that is kept for it has become larger than backup.hold")
	// ErrBackupRoom ends a backup for which segments are kept that a full disk needs.
	ErrBackupRoom = errors.New("the disk is full: the backup was given up to make room")
	// ErrBackupGrowth is returned when tables grow faster than they are copied.
	ErrBackupGrowth = errors.New("the tables grow faster than they are copied: try again with a faster connection")
)

const (
	maxBackups   = 4 // at the same time
	tablePasses  = 8 // how often a table is copied because it grew meanwhile
	holdInterval = time.Second
	// tailRoom is the most bytes that the copy of the last segment has after its end, for the
	// first batches of the restored server.
	tailRoom = 256 << 10
)

// backups are the active backups.
type backups struct {
	mu  sync.Mutex
	all map[*backup]bool
}

// add adds a backup. The caller holds mu.
func (b *backups) add(one *backup) {
	if b.all == nil {
		b.all = make(map[*backup]bool)
	}
	b.all[one] = true
}

// copying returns the number of backups without those of a Keeper. The caller holds mu.
func (b *backups) copying() (n int) {
	for one := range b.all {
		if one.out != nil {
			n++
		}
	}
	return n
}

// backup is one active backup. It belongs to one goroutine, except for pin and cancel.
type backup struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	pin    *wal.Pin
	out    *archive.Writer
	buf    []byte

	from   checkpoint
	index  disk.File // nil: there is none
	began  time.Time
	looked time.Time // when held was last compared with its limit
	keeps  int64     // what held was then
}

// Backup writes an archive to w that holds everything as it was at one moment after the call,
// and returns its manifest. program names the version of the program. If ctx ends, a write
// fails or one of the errors above occurs, the archive is incomplete.
func (s *Store) Backup(ctx context.Context, w io.Writer, program string) (archive.Manifest, error) {
	b := &backup{s: s, buf: make([]byte, backupPiece), began: time.Now()}
	b.out = archive.NewWriter(newPace(pace{w: w, log: s.Log.Durable, now: time.Now, sleep: s.o.Pause, hurry: b.hurry}), b.began)
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	defer b.cancel(nil)
	if err := b.begin(); err != nil {
		return archive.Manifest{}, err
	}
	m := archive.Manifest{Program: program}
	err := b.run(&m)
	return m, errors.Join(err, b.end())
}

// BackupSize returns the approximate size of a backup made now, in bytes.
func (s *Store) BackupSize() int64 {
	s.checkpointing.Lock()
	b, index := backup{s: s, from: s.last}, s.snapshot
	s.checkpointing.Unlock()
	n := 2 * b.from.Room
	for _, size := range s.Tables.Sizes() {
		n += size
	}
	if index.none == nil {
		n += index.size
	}
	for number := range b.segments(s.Log.Durable()) {
		if seg := s.Log.Segment(number); seg != nil {
			n += seg.Size()
		}
	}
	return n
}

// begin takes the last checkpoint and keeps what it needs.
func (b *backup) begin() error {
	s := b.s
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	if err := s.writer.Err(); err != nil {
		return err
	}
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	if s.backups.copying() >= maxBackups {
		return ErrBackups
	}
	b.from = s.last
	var err error
	if b.pin, err = s.Log.Pin(b.from.Segments[0]); err != nil {
		return err
	}
	// The index is not newer than the checkpoint, and once it is open it does not change.
	if s.snapshot.none == nil {
		if b.index, err = s.o.FS.Open(path.Join(s.o.Dir, kvlog.SnapshotName)); err != nil {
			b.pin.Release()
			return err
		}
	}
	s.backups.add(b)
	return nil
}

// end releases everything, and lets a checkpoint free the segments that were kept.
func (b *backup) end() error {
	s := b.s
	b.pin.Release()
	s.backups.mu.Lock()
	delete(s.backups.all, b)
	s.backups.mu.Unlock()
	if s.freeable() {
		wake(s.checkpointWake)
	}
	if b.index == nil {
		return nil
	}
	return b.index.Close()
}

func (b *backup) run(m *archive.Manifest) error {
	if err := b.checkpoint(); err != nil {
		return err
	}
	end, err := b.tables()
	if err != nil {
		return err
	}
	b.pin.Narrow(b.from.Segments[0], end.Segment)
	m.Segment, m.Offset, m.Batch = end.Segment, end.Offset, end.Seq
	if err := b.moment(m, end); err != nil {
		return err
	}
	if err := b.copyIndex(); err != nil {
		return err
	}
	for n := range b.segments(end) {
		if err := b.segment(n, end); err != nil {
			return err
		}
		b.pin.Narrow(n+1, end.Segment)
	}
	return b.out.Close(*m)
}

// checkpoint writes CHECKPOINT as it was when the backup began.
func (b *backup) checkpoint() error {
	room := b.from.Room
	if err := b.out.Begin(checkpointName, 2*room); err != nil {
		return err
	}
	for range 2 {
		record := b.from.encode()
		if _, err := b.out.Write(record); err != nil {
			return err
		}
		if err := b.out.Zeros(room - int64(len(record))); err != nil {
			return err
		}
	}
	return nil
}

// tables writes the tables and returns the end of the copy: the end of the log at a moment at
// which no table was larger than its copy. A table that has grown is written again, with room
// for more growth.
func (b *backup) tables() (end wal.Pos, err error) {
	var wrote [len(slots.Classes)]int64
	for pass := 0; ; pass++ {
		end = b.s.Log.Durable()
		// Read the sizes after the end of the log: a table grows before the log has one of its
		// new slots.
		size := b.s.Tables.Sizes()
		if size = outgrown(size, wrote); size == [len(slots.Classes)]int64{} {
			return end, nil
		}
		if pass > tablePasses {
			return end, ErrBackupGrowth
		}
		for class, n := range size {
			if n == 0 {
				continue
			}
			if wrote[class] > 0 {
				n += 2 * (n - wrote[class])
			}
			if err := b.table(class, n); err != nil {
				return end, err
			}
			wrote[class] = n
		}
	}
}

// outgrown returns the sizes of the tables that are larger than their copies, and 0 for the
// others.
func outgrown(size, wrote [len(slots.Classes)]int64) [len(slots.Classes)]int64 {
	for class := range size {
		if size[class] <= wrote[class] {
			size[class] = 0
		}
	}
	return size
}

// table writes the header and the slots below the high-water mark of a table, and
// zeros up to a size.
func (b *backup) table(class int, size int64) error {
	if err := b.out.Begin(slots.FileName(class), size); err != nil {
		return err
	}
	err := b.copy(slots.BytesTo(class, b.from.Used[class]), func(p []byte, off int64) error {
		return b.s.Tables.ReadFile(class, p, off)
	})
	if err != nil {
		return err
	}
	return b.out.Zeros(-1)
}

// moment records in the manifest the state at the end of the copy, or shortly after it.
func (b *backup) moment(m *archive.Manifest, end wal.Pos) error {
	for {
		at := b.s.writer.Position()
		// A seal, which the log can be left with if the disk is full just then, is never applied.
		sealed := end.StartsSegment() && at.Log.Seq+1 == m.Batch
		if at.Log.Seq >= m.Batch || sealed {
			m.Version, m.Tokens, m.Time = at.Version, at.Tokens, time.Unix(0, b.s.Clock.Read().Wall)
			return nil
		}
		// The batch is durable, and is being applied.
		if err := b.check(); err != nil {
			return err
		}
		if err := b.s.writer.Err(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *backup) copyIndex() error {
	if b.index == nil {
		return nil
	}
	size, err := b.index.Size()
	if err != nil {
		return err
	}
	if err := b.out.Begin(kvlog.SnapshotName, size); err != nil {
		return err
	}
	return b.copy(size, func(p []byte, off int64) error { return readFull(b.index, p, off) })
}

// segments returns the segments that the copy needs, ascending.
func (b *backup) segments(end wal.Pos) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for _, n := range b.from.Segments {
			if n < b.from.Log.Segment && !yield(n) {
				return
			}
		}
		for n := b.from.Log.Segment; n <= end.Segment; n++ {
			if !yield(n) {
				return
			}
		}
	}
}

// segment writes a segment of the log. The last one is shortened, and its header has the new
// size: most of the room that the server keeps ready after the end is not in the copy.
func (b *backup) segment(n uint64, end wal.Pos) error {
	seg := b.s.Log.Segment(n)
	if seg == nil {
		return errors.Join(context.Cause(b.ctx), fmt.Errorf("segment %d of the log is not there", n))
	}
	size, upTo := seg.Size(), seg.Size()
	if n == end.Segment {
		size, upTo = min(size, wal.SizeFor(end.Offset+min(tailRoom, size/8))), end.Offset
	}
	header, err := seg.Header(size)
	if err != nil {
		return errors.Join(context.Cause(b.ctx), err)
	}
	if err := b.out.Begin(path.Join(archive.LogDir, path.Base(seg.Path())), size); err != nil {
		return err
	}
	err = b.copy(upTo, func(p []byte, off int64) error {
		if err := readFull(seg, p, off); err != nil {
			return err
		}
		if off == 0 {
			copy(p, header)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.out.Zeros(-1)
}

// copy writes the first size bytes of a file.
func (b *backup) copy(size int64, read func(p []byte, off int64) error) error {
	for off := int64(0); off < size; {
		if err := b.check(); err != nil {
			return err
		}
		p := b.buf[:min(size-off, int64(len(b.buf)))]
		if err := read(p, off); err != nil {
			// A segment that was released may be removed while it is read.
			return errors.Join(context.Cause(b.ctx), err)
		}
		if _, err := b.out.Write(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
