package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// leastSegment is the size in bytes below which a segment is not made smaller to
// fit on a disk that is too small for two, unless all are that small.
const leastSegment = 256 << 10

// NeedsPrepare reports whether there is something for Prepare to do. Any
// goroutine may call it, and Prepare.
func (l *Log) NeedsPrepare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (l.next == nil || l.reserved == 0 || l.next.size <= l.reserved/2) && l.failed == nil
}

// Last reports whether the log has nowhere to go on after the segment that is
// written to. Any goroutine may call it.
func (l *Log) Last() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next == nil && l.reserved == 0
}

// LastRoom returns the number of the active segment and how many bytes of batches fit
// into it in all, if the log has nowhere to go on after it; else 0. Any goroutine may
// call it.
func (l *Log) LastRoom() (segment uint64, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil || l.reserved > 0 {
		return 0, 0
	}
	return l.active.number, l.active.room(pageSize)
}

// NextRoom returns how many bytes of batches fit into the next segment, 0 if there is
// none. Any goroutine may call it.
func (l *Log) NextRoom() int64 {
	next := l.ready()
	if next == nil {
		return 0
	}
	return next.room(pageSize)
}

// Left returns how many bytes of batches fit after pos into its segment, 0 if that is
// gone. Any goroutine may call it.
func (l *Log) Left(pos Pos) int64 {
	s := l.Segment(pos.Segment)
	if s == nil {
		return 0
	}
	return s.room(pos.Offset)
}

// Grown returns how often Prepare has given the log room since Start. Who found no room
// tries again if it has changed. Any goroutine may call it.
func (l *Log) Grown() uint64 { return l.grown.Load() }

// ahead returns the bytes of the next segment and of the reserve.
func (l *Log) ahead() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		return l.reserved
	}
	return l.reserved + l.next.size
}

// Prepare makes the next segment, if there is none ready or a small one, and
// reserves the one after it. It returns once the segment is durable. On a full disk it does what
// it can and returns an error that disk.IsFull recognises: it can be called again.
func (l *Log) Prepare() error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	next, err := l.next, l.failed
	l.mu.Unlock()
	if err != nil {
		return err
	}
	wanted, err := l.fit()
	if err != nil {
		return err
	}
	before := l.ahead()
	defer func() {
		if l.ahead() > before {
			l.grown.Add(1)
		}
	}()
	// The reserve comes first, as it takes no time: with it callers need not wait
	// for the segment.
	full := l.reserve(wanted)
	if full != nil && !disk.IsFull(full) {
		return full
	}
	l.mu.Lock()
	reserved := l.reserved
	l.mu.Unlock()
	if next != nil && (full != nil || next.size > reserved/2) {
		return full
	}
	if next != nil {
		if err := l.removeNext(next); err != nil {
			return err
		}
	}
	l.mu.Lock()
	number := l.active.number + 1
	l.mu.Unlock()
	size := wanted
	if full == nil {
		size = reserved
		if err := l.o.FS.Rename(l.o.reservePath(), l.o.path(number)); err != nil {
			return err
		}
	}
	s, err := l.o.createAnySize(number, size, full == nil, l.alone())
	l.mu.Lock()
	l.reserved = 0
	if s != nil {
		l.segments = append(l.segments, s)
		l.bytes += s.size
		l.next = s
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.reserve(wanted)
}

// fewest is how many segments a log has room for, if they can be made so small.
const fewest = 8

// fit returns the size in bytes of new segments for a disk that has room for so many
// bytes of log besides what is free.
func (o Options) fit(used int64) (int64, error) {
	if o.Least == 0 || o.Least >= o.Segment {
		return o.Segment, nil
	}
	free, err := o.FS.Free(o.Dir)
	if err != nil {
		return 0, err
	}
	room := free + used
	room -= room / 16 // for the other files
	size := o.Segment
	for size*fewest > room && size/2 >= o.Least {
		size = size / 2 / pageSize * pageSize
	}
	// With two of a size one can always be compacted into the other.
	if two := room / 2 / pageSize * pageSize; size > two {
		size = max(two, min(o.Least, leastSegment))
	}
	return size, nil
}

// fit returns the size in bytes of the next segment to be made. What is live in a
// larger one must fit into it, where others have filled the disk meanwhile.
func (l *Log) fit() (int64, error) {
	l.mu.Lock()
	used, largest := l.reserved, l.reserved
	for _, s := range l.segments {
		used += s.size
		largest = max(largest, s.size)
	}
	l.mu.Unlock()
	size, err := l.o.fit(used)
	return max(size, min(largest, l.o.Segment)), err
}

// SegmentSize returns the bytes of the segment that is written to. Any goroutine may
// call it.
func (l *Log) SegmentSize() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active.size
}

// removeNext removes the next segment, unless the writer has just gone on in it.
func (l *Log) removeNext(next *Segment) error {
	l.mu.Lock()
	if l.next != next {
		l.mu.Unlock()
		return nil
	}
	l.next = nil
	l.segments = slices.DeleteFunc(l.segments, func(s *Segment) bool { return s == next })
	l.bytes -= next.size
	l.mu.Unlock()
	return errors.Join(next.file.Close(), l.o.FS.Remove(next.path))
}

// alone reports whether there is no segment but the active one.
func (l *Log) alone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.segments) == 1
}

// createAnySize makes a segment of so many bytes. On a disk that has no room for a
// second one of this size it makes one of half the size, and so on down to an eighth, but
// not less than 256 KiB, and returns it with the error of the one before.
func (o Options) createAnySize(number uint64, size int64, reserved, alone bool) (*Segment, error) {
	least := size
	if alone {
		least = min(size, max(size/8, leastSegment))
	}
	var full error
	for {
		s, err := o.createSegment(number, size, reserved)
		if err == nil {
			return s, full
		}
		full = fmt.Errorf("make a log segment of %d bytes: %w", size, err)
		smaller := size / 2 / pageSize * pageSize
		if !disk.IsFull(err) || smaller < least {
			return nil, full
		}
		size, reserved = smaller, false
	}
}

// Free removes the segments with a number less than before, but for those that
// keep (nil: none) wants kept, those that a Pin keeps, and the one that is
// written to. Their removal is durable when it returns, unless there was no
// descriptor for that. Any goroutine may call it; a segment that no Pin keeps must
// no longer be read.
func (l *Log) Free(before uint64, keep func(segment uint64) bool) error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	err := l.failed
	var doomed []*Segment
	for _, s := range l.segments {
		if err == nil && s.number < min(before, l.active.number) && !l.pinned(s.number) {
			doomed = append(doomed, s)
		}
	}
	l.mu.Unlock()
	if keep != nil {
		doomed = slices.DeleteFunc(doomed, func(s *Segment) bool { return keep(s.number) })
	}
	if err != nil || len(doomed) == 0 {
		return err
	}
	var errs []error
	for _, s := range doomed {
		err := l.o.FS.Remove(s.path)
		if disk.IsFull(err) {
			break // btrfs can want room for that; the next Free tries again
		}
		if err != nil {
			errs = append(errs, err)
			break
		}
		l.mu.Lock()
		l.segments = slices.DeleteFunc(l.segments, func(o *Segment) bool { return o == s })
		l.bytes -= s.size
		l.mu.Unlock()
		errs = append(errs, s.file.Close())
	}
	// Without a descriptor for it the removal is not durable: what is there again
	// after a power cut, Open and Start remove.
	if err := l.o.FS.SyncDir(l.o.Dir); !disk.IsNoDescriptor(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
