package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// Repair makes durable what Replay found. It writes the replayed batches of the last
// segment again, the same bytes to the same place: after a failed sync the page cache can
// hold pages that are not on disk, and another sync would not write them. It clears the
// torn tail, and repairs the next segment if a crash interrupted its creation. A crash
// during Repair does not change what the next Replay finds.
//
// A full disk may have no room for these writes if a copy shares the blocks. Then the
// replayed batches are read from the disk itself, bypassing the page cache, and the log
// starts if they are there. A torn tail that cannot be cleared may stay if the disk has it
// as it was read, because then no power cut can make it whole. It is cleared before the
// next batch.
func (l *Log) Repair(t Tail) error {
	if l.recovered < replayed {
		return errors.New("wal: Repair before Replay")
	}
	if err := l.unshare(t); err != nil {
		return err
	}
	if err := l.rewrite(t); err != nil {
		return err
	}
	end := l.find(t.End.Segment)
	if t.Torn != "" {
		l.o.Log.Warn("cut a torn batch off the end of the log, it was never acknowledged", "file", end.path,
			"offset", t.End.Offset, "bytes", t.Garbage.To-t.End.Offset, "found", t.Torn)
	}
	if err := l.clearTail(end, t); err != nil {
		return err
	}
	if err := l.repairNext(t.End.Segment + 1); err != nil {
		return err
	}
	if err := l.o.FS.SyncDir(l.o.Dir); err != nil {
		return err
	}
	l.recovered = repaired
	return nil
}

// clearTail clears the torn tail, and always the place of the next batch's header. That
// may read as zeros only in the page cache, while the disk still has a batch that found no
// room; see full.go.
func (l *Log) clearTail(s *Segment, t Tail) error {
	from, to := t.End.Offset, max(t.Garbage.To, min(t.End.Offset+batchHeader, s.size))
	if from == to {
		return nil
	}
	err := zero(s, from, to)
	if err == nil {
		return s.file.Sync()
	}
	if !disk.IsFull(err) {
		return err
	}
	// A part of it may have been cleared.
	l.left = to
	return l.holds(s, from, to, err)
}

// holds returns full unless the disk itself has what reads of [from, to) of a segment
// return.
func (l *Log) holds(s *Segment, from, to int64, full error) error {
	p := make([]byte, to-from)
	if _, err := s.file.ReadAt(p, from); err != nil {
		return err
	}
	held, err := s.file.Holds(p, from)
	if err == nil && !held {
		err = fmt.Errorf("%s: the bytes from offset %d to %d are only in the page cache and cannot be written to disk: %w", s.path, from, to, full)
	}
	return err
}

// unshare makes blocks that will be written private to the log, if a copy of the directory
// shares them. On a full disk that may fail; then the writes report it.
func (l *Log) unshare(t Tail) error {
	for _, s := range l.segments {
		if s.bad != nil || s.number < t.End.Segment && s.number != t.Last.Segment {
			continue
		}
		if err := s.file.Unshare(); err != nil && !disk.IsFull(err) {
			return err
		}
	}
	return nil
}

// rewrite writes the replayed batches of the last segment again and syncs it.
func (l *Log) rewrite(t Tail) error {
	if t.Last.To == t.Last.From {
		return nil
	}
	s := l.find(t.Last.Segment)
	w := window{s: s}
	var buf []byte // adjacent batches that are still to be written
	flush := func(at int64) error {
		from := at - int64(len(buf))
		_, err := s.file.WriteAt(buf, from)
		if disk.IsFull(err) {
			err = l.holds(s, from, at, err)
		}
		buf = buf[:0]
		return err
	}
	pos := t.first
	for pos.Offset < t.Last.To {
		// Check it again: a failing disk may return other bytes now.
		b, f, err := l.codec.batch(&w, pos)
		if err == nil && f != nil {
			err = s.Damage(pos.Offset, f.what+", though it was good a moment ago", fmt.Sprintf("batch %d and all after it", pos.Seq+1))
		}
		if err != nil {
			return err
		}
		if len(buf) > 0 && len(buf)+len(b.bytes) > windowSize {
			if err := flush(pos.Offset); err != nil {
				return err
			}
		}
		buf = append(buf, b.bytes...)
		pos = b.end()
	}
	if err := flush(pos.Offset); err != nil {
		return err
	}
	return s.file.Sync()
}

// repairNext repairs the segment after the last one, which has no batches. It is removed
// if its header is bad. Otherwise it is cleared and kept, because a disk that is full by
// now has no room for another. If there is not even room to clear it, it is removed.
func (l *Log) repairNext(number uint64) error {
	s := l.find(number)
	if s == nil {
		return nil
	}
	remove := func() error {
		l.segments = slices.DeleteFunc(l.segments, func(o *Segment) bool { return o == s })
		return errors.Join(s.file.Close(), l.o.FS.Remove(s.path))
	}
	if s.bad != nil {
		return remove()
	}
	left, err := l.codec.scan(s, pageSize, 0, false)
	if err != nil {
		return err
	}
	err = zero(s, left.from, left.to)
	if err == nil {
		// The sync when it was created may have failed.
		err = l.o.writeHeader(s)
	}
	if disk.IsFull(err) {
		return remove()
	}
	if err != nil {
		return err
	}
	return s.file.Sync()
}

// zero overwrites [from, to) of a segment with zeros. It does not sync.
func zero(s *Segment, from, to int64) error {
	for from < to {
		n := min(to-from, int64(len(zeros)))
		if _, err := s.file.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

var zeros [64 << 10]byte
