package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// leastSegment is the least size in bytes to which segments are shrunk to fit two of them
// on a small disk. Options may ask for smaller ones.
const leastSegment = 256 << 10

// NeedsPrepare reports whether Prepare has something to do. Any goroutine may call it
// and Prepare.
func (l *Log) NeedsPrepare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (l.next == nil || l.reserved == 0 || l.next.size <= l.reserved/2) && l.failed == nil
}

// Last reports whether there is neither a segment after the active one nor a reserve.
// Any goroutine may call it.
func (l *Log) Last() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next == nil && l.reserved == 0
}

// LastRoom returns the number of the active segment and how many bytes of batches it can
// hold in all, if there is no segment after it and no reserve; else 0. Any goroutine may
// call it.
func (l *Log) LastRoom() (segment uint64, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil || l.reserved > 0 {
		return 0, 0
	}
	return l.active.number, l.active.room(pageSize)
}

// NextRoom returns how many bytes of batches the next segment can hold, 0 if there is
// none. Any goroutine may call it.
func (l *Log) NextRoom() int64 {
	next := l.ready()
	if next == nil {
		return 0
	}
	return next.room(pageSize)
}

// Left returns how many bytes of batches fit after pos in its segment, 0 if the segment
// is gone. Any goroutine may call it.
func (l *Log) Left(pos Pos) int64 {
	s := l.Segment(pos.Segment)
	if s == nil {
		return 0
	}
	return s.room(pos.Offset)
}

// Grown returns how often Prepare has made room in the log since Start. A caller that
// found no room tries again when it has changed. Any goroutine may call it.
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

// Prepare makes the next segment, if none is ready or only a small one, and the reserve.
// It returns once the segment is durable. On a full disk it does what it can and returns
// an error that disk.IsFull recognises; it can be called again.
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
	// The reserve comes first because it is quick to make, and with it callers need not
	// wait for the segment.
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

// fewest is how many segments the disk should have room for: segments are shrunk for that,
// as far as possible.
const fewest = 8

// fit returns the size in bytes of new segments. used is how many bytes the log takes
// now, in addition to what is free on the disk.
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
	// Of two segments of the same size, one can always be compacted into the other.
	if two := room / 2 / pageSize * pageSize; size > two {
		size = max(two, min(o.Least, leastSegment))
	}
	return size, nil
}

// fit returns the size in bytes of the next segment. The live data of any larger segment
// must fit into it, even if other programs have filled the disk meanwhile.
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

// removeNext removes the next segment, unless the writer has just started to use it.
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

// alone reports whether the active segment is the only one.
func (l *Log) alone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.segments) == 1
}

// createAnySize makes a segment of size bytes. On a disk that has no room for a second
// one of this size it tries half the size, and so on down to an eighth, but not less than
// 256 KiB, and returns the segment together with the error of the previous try.
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

// Free removes the segments with a number less than before, except those for which keep
// returns true (nil: none), those that a Pin keeps, and the active one. The removal is
// durable when it returns, unless no descriptor was left for that. Any goroutine may call
// it; a segment that no Pin keeps must no longer be read.
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
			break // btrfs can need room to remove a file; the next Free tries again
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
	// Without a descriptor the removal is not made durable. If a power cut brings the
	// files back, Open and Start remove them.
	if err := l.o.FS.SyncDir(l.o.Dir); !disk.IsNoDescriptor(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
