package kvlog

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
	active, next, err := l.active, l.next, l.failed
	l.mu.Unlock()
	if err != nil || next != nil {
		return err
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

func (o Options) createAnySize(number uint64) (*segment, error) {
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

// Free removes the segments with a number less than before, but for those that
// keep (nil: none) wants kept and the one that is written to. Their removal is
// durable when it returns. Any goroutine may call it; a segment must no longer be read.
func (l *Log) Free(before uint64, keep func(segment uint64) bool) error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	err := l.failed
	var doomed []*segment
	for _, s := range l.segments {
		if err == nil && s.number < min(before, l.active.number) {
			doomed = append(doomed, s)
		}
	}
	l.mu.Unlock()
	if keep != nil {
		doomed = slices.DeleteFunc(doomed, func(s *segment) bool { return keep(s.number) })
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
		l.segments = slices.DeleteFunc(l.segments, func(o *segment) bool { return o == s })
		l.bytes -= s.size
		l.mu.Unlock()
		errs = append(errs, s.file.Close())
	}
	errs = append(errs, l.o.FS.SyncDir(l.o.Dir))
	return errors.Join(errs...)
}
