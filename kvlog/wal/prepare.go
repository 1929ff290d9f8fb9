package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// leastSegment is the size in bytes below which a segment is not made smaller to
// fit on a full disk, unless all are that small.
const leastSegment = 256 << 10

// NeedsPrepare says whether there is no segment ready to be the next. Any
// goroutine may call it, and Prepare.
func (l *Log) NeedsPrepare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next == nil && l.failed == nil
}

// Prepare makes the next segment, if there is none ready, and returns once it is
// durable. On a full disk it makes one of half the size, and so on down to an
// eighth of Options.Segment, but not less than 256 KiB. If there is no room for
// that either it returns an error that disk.IsFull recognises and leaves nothing
// behind: it can be called again.
func (l *Log) Prepare() error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	active, next, small, err := l.active, l.next, l.small, l.failed
	l.mu.Unlock()
	if err != nil || next != nil {
		return err
	}
	if small != nil {
		return l.enlarge(small)
	}
	// Without a next segment the writer cannot leave this one.
	s, err := l.o.createAnySize(active.number + 1)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.bytes += s.size
	l.next = s
	l.mu.Unlock()
	return nil
}

func (o Options) createAnySize(number uint64) (*Segment, error) {
	least := min(o.Segment, max(o.Segment/8, leastSegment))
	for size := o.Segment; ; {
		s, err := o.createSegment(number, size)
		if err == nil {
			return s, nil
		}
		smaller := size / 2 / pageSize * pageSize
		if !disk.IsFull(err) || smaller < least {
			return nil, fmt.Errorf("make a log segment of %d bytes: %w", size, err)
		}
		size = smaller
	}
}

// Withdraw takes the next segment back if it is smaller than Options.Segment, and
// says whether it was: Prepare makes it as large, or makes it ready as it is on a
// disk that is still full. Only the writer calls it, with nothing decided that
// needs the room.
func (l *Log) Withdraw() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil || l.next.size >= l.o.Segment {
		return false
	}
	l.next, l.small = nil, l.next
	return true
}

// enlarge makes the withdrawn segment as large as a new one, and ready. Nobody
// else writes to it. It wants dir held.
func (l *Log) enlarge(small *Segment) error {
	s := *small
	s.size = l.o.Segment
	err := s.file.Allocate(small.size, s.size-small.size)
	if disk.IsFull(err) {
		err = fmt.Errorf("make a log segment of %d bytes larger: %w", small.size, err)
		if err := s.file.Truncate(small.size); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.next, l.small = small, nil
		return err
	}
	// The length comes first: a header that says more than that is no good.
	for _, step := range []func() error{s.file.Sync, func() error { return l.o.writeHeader(&s) }, s.file.Sync} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return fmt.Errorf("make a log segment of %d bytes larger: %w: %v", small.size, ErrFailed, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[slices.Index(l.segments, small)] = &s
	l.bytes += s.size - small.size
	l.next, l.small = &s, nil
	return nil
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
		if err == nil && s.number < min(before, l.active.number, l.firstPinned()) {
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
		if err := l.o.FS.Remove(s.path); err != nil {
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
