package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// A log can be followed by another one, which has the same batches at the same places,
// byte for byte. Each batch goes to the follower as a Frame: the records and their place.
// The follower makes the headers and seals itself. Each header has a checksum of the batch
// before it, so comparing a single position shows whether two logs are the same up to there.

// Frame is a batch on its way to a following log.
type Frame struct {
	From    Pos    // the end of the log before it
	Segment uint64 // the batch's: that of From, or the one after it
	Size    int64  // of that segment, in bytes
	Count   uint32 // records
	Records []byte // in the log's format
}

// errFrame is returned for a frame that no log of this version can have made.
var errFrame = errors.New("not a batch of a log")

// Frame returns the batch as the next Append would write it. It shares the records with
// b. Only the writer calls it.
func (l *Log) Frame(b *Batch) Frame {
	f := Frame{From: l.end, Segment: l.active.number, Size: l.active.size, Count: b.count}
	if b.count == 0 {
		return f
	}
	f.Records = b.buf[batchHeader:]
	n := int64(b.Len())
	if fits := n <= l.active.room(l.end.Offset); fits && !b.first {
		return f
	}
	if next := l.ready(); next != nil && n <= next.room(pageSize) {
		f.Segment, f.Size = next.number, next.size
	}
	return f
}

// NextFrame is like Next, but returns a Frame.
func (r *Reader) NextFrame(ctx context.Context) (Frame, error) {
	from := r.ended
	_, recs, err := r.Next(ctx)
	if err != nil {
		return Frame{}, err
	}
	return Frame{From: from, Segment: recs.Segment, Size: r.w.s.size, Count: uint32(recs.count), Records: recs.bytes}, nil
}

// SegmentSizeAt returns the size in bytes of the segment of a position, 0 if there is
// none. Any goroutine may call it.
func (l *Log) SegmentSizeAt(p Pos) int64 {
	if s := l.Segment(p.Segment); s != nil {
		return s.size
	}
	return 0
}

// AppendFrame appends the batch to a following log and returns the position after it
// once it is durable. b is filled with the records. The error is ErrNoPosition if the log
// does not end where the frame begins; nothing was written then. If there is no room, it is
// one that disk.IsFull recognises, and not final. Other errors are those of Append. Only
// the writer calls it.
func (l *Log) AppendFrame(b *Batch, f Frame) (Pos, error) {
	if l.err != nil {
		return Pos{}, l.err
	}
	if f.From != l.end {
		return Pos{}, fmt.Errorf("batch %d at offset %d of segment %d, the log ends with batch %d at offset %d of segment %d: %w",
			f.From.Seq, f.From.Offset, f.From.Segment, l.end.Seq, l.end.Offset, l.end.Segment, ErrNoPosition)
	}
	if what := checkRecords(f.Records, f.Count); what != "" || f.Count == 0 {
		return Pos{}, fmt.Errorf("%w: %s", errFrame, what)
	}
	b.Reset()
	b.set(f)
	n := int64(b.Len())
	switch f.Segment {
	case l.end.Segment:
		if n > l.active.room(l.end.Offset) {
			return Pos{}, fmt.Errorf("%w: %d bytes at offset %d of a segment of %d", errFrame, n, l.end.Offset, l.active.size)
		}
	case l.end.Segment + 1:
		if err := l.PrepareNext(f.Size); err != nil {
			return Pos{}, err
		}
		if err := l.roll(n); err != nil {
			return Pos{}, err
		}
	default:
		return Pos{}, fmt.Errorf("%w: it goes to segment %d, the log ends in %d", errFrame, f.Segment, l.end.Segment)
	}
	if err := l.write(b); err != nil {
		return Pos{}, err
	}
	l.mu.Lock()
	l.publish(l.end)
	l.mu.Unlock()
	return l.end, nil
}

// set fills an empty batch with the records of a frame.
func (b *Batch) set(f Frame) {
	b.buf = append(append(b.buf[:0], make([]byte, batchHeader)...), f.Records...)
	b.count = f.Count
}

// Holds reports whether the batch has the records of a frame.
func (b *Batch) Holds(f Frame) bool {
	return b.count > 0 && b.count == f.Count && bytes.Equal(b.buf[batchHeader:], f.Records)
}

// PrepareAhead makes the next segment of a following log, as large as the active one, if
// there is none. Any goroutine may call it.
func (l *Log) PrepareAhead() error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	next, size := l.next, l.active.size
	l.mu.Unlock()
	if next != nil {
		return nil // the writer may be about to use it
	}
	return l.prepareNext(size)
}

// PrepareNext makes the next segment of a following log with the size that it has in the
// log that is followed. It makes no reserve. Only the writer calls it, because it removes a
// next segment of another size.
func (l *Log) PrepareNext(size int64) error {
	l.dir.Lock()
	defer l.dir.Unlock()
	return l.prepareNext(size)
}

// prepareNext requires l.dir to be held.
func (l *Log) prepareNext(size int64) error {
	if err := checkSize(size); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	l.mu.Lock()
	next, number, err := l.next, l.active.number+1, l.failed
	l.mu.Unlock()
	if err != nil || next != nil && next.size == size {
		return err
	}
	if next != nil {
		if err := l.removeNext(next); err != nil {
			return err
		}
	}
	s, err := l.o.createSegment(number, size, false)
	if err != nil {
		return fmt.Errorf("make a log segment of %d bytes: %w", size, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, s)
	l.bytes += s.size
	l.next = s
	return nil
}

// Ends returns the ends of the last batches, at most most, newest first, of a log that
// was opened but not started. It reads from the position that was passed to Open, which
// may be the last one that it returns.
func (l *Log) Ends(most int) ([]Pos, error) {
	ends := []Pos{l.from}
	_, err := l.replay(func(b batch) error {
		if len(ends) == most {
			copy(ends, ends[1:])
			ends = ends[:most-1]
		}
		end := b.end()
		if b.isSeal() { // the log continues in the next segment
			end.Segment, end.Offset = end.Segment+1, pageSize
		}
		ends = append(ends, end)
		return nil
	})
	slices.Reverse(ends)
	return ends, err
}

// CutTo cuts off everything after the end of a batch, as if it had never been written. The
// log must have been opened but not started, and must be opened again afterwards. size is
// the least size in bytes that the segment must have. What is cut off does not exist in the
// log that is followed, and no client has got an answer for it.
func (l *Log) CutTo(at Pos, size int64) error {
	s := l.find(at.Segment)
	if s == nil || s.bad != nil {
		return fmt.Errorf("segment %d: %w", at.Segment, ErrNoPosition)
	}
	// From the back to the front, so that what is left is always a log.
	var last error
	for i := len(l.segments) - 1; i >= 0 && l.segments[i].number > at.Segment; i-- {
		if err := l.segments[i].file.Close(); err != nil {
			return err
		}
		if err := l.o.FS.Remove(l.segments[i].path); err != nil {
			return err
		}
		l.segments = l.segments[:i]
		last = l.o.FS.SyncDir(l.o.Dir)
	}
	if last != nil {
		return last
	}
	if err := s.file.ready(); err != nil {
		return err
	}
	if err := zero(s, at.Offset, s.size); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if size <= s.size {
		return nil
	}
	// A backup shortens the last segment. The file grows before its header is changed,
	// because it may be longer than its header says, but not shorter.
	if err := checkSize(size); err != nil {
		return err
	}
	if err := s.file.Allocate(s.size, size-s.size); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.size = size
	if err := l.o.writeHeader(s); err != nil {
		return err
	}
	return s.file.Sync()
}

// IsFrame reports whether an error says that a frame is not a batch of a log.
func IsFrame(err error) bool { return errors.Is(err, errFrame) }

// All iterates over the records. Their offsets are relative to the frame.
func (f Frame) All() iter.Seq[Record] {
	if checkRecords(f.Records, f.Count) != "" {
		return func(func(Record) bool) {}
	}
	return Records{Segment: f.Segment, bytes: f.Records, count: int(f.Count)}.All()
}
