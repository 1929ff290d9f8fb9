package wal

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// ErrNoPosition is returned when the log cannot be read from a position: its segment or a
// later one was freed, or the log continues differently from there.
var ErrNoPosition = errors.New("the log does not continue at this position")

// Pin keeps segments from being freed.
type Pin struct {
	log         *Log
	first, last uint64 // guarded by log.mu; the segments that are kept
}

// Pin keeps the segments from that number on until Release: Free skips them. It
// returns ErrNoPosition if the log no longer has the segment. Any goroutine may call it;
// it may wait for a running Free or Prepare.
func (l *Log) Pin(segment uint64) (*Pin, error) {
	// Free chooses and removes segments with dir held.
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if l.find(segment) == nil {
		return nil, fmt.Errorf("segment %d is not there: %w", segment, ErrNoPosition)
	}
	p := &Pin{log: l, first: segment, last: math.MaxUint64}
	l.pins[p] = true
	return p, nil
}

// Release lets the next Free remove the segments. It may be called more than once,
// by any goroutine.
func (p *Pin) Release() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	delete(p.log.pins, p)
}

// moveTo releases the segments before that one.
func (p *Pin) moveTo(segment uint64) { p.Narrow(segment, math.MaxUint64) }

// Narrow releases the segments before first and those after last. Segments that were
// released before stay released.
func (p *Pin) Narrow(first, last uint64) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	p.first, p.last = max(p.first, first), min(p.last, last)
}

// Keeps reports whether the pin keeps a segment.
func (p *Pin) Keeps(segment uint64) bool {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.pins[p] && p.keeps(segment)
}

// keeps requires log.mu to be held.
func (p *Pin) keeps(segment uint64) bool { return p.first <= segment && segment <= p.last }

// pinned reports whether a Pin keeps a segment. mu must be held.
func (l *Log) pinned(segment uint64) bool {
	for p := range l.pins {
		if p.keeps(segment) {
			return true
		}
	}
	return false
}

// Durable returns the end of the last batch that is durable. Any goroutine may
// call it.
func (l *Log) Durable() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// publish tells readers that everything up to end is durable. mu must be held.
func (l *Log) publish(end Pos) {
	l.durable = end
	l.wakeReaders()
}

// wakeReaders makes waiting readers look at durable, failed and closed again. mu must be
// held.
func (l *Log) wakeReaders() {
	if l.progress != nil {
		close(l.progress)
		l.progress = nil
	}
}

// Reader reads the batches of an open log in order and follows it as it grows. It never
// returns a batch before it is durable. One goroutine at a time may use a Reader; there
// may be many readers.
type Reader struct {
	log   *Log
	pin   *Pin
	pos   Pos // after the last batch that was read, or after a seal after it
	ended Pos // after the last batch that was returned
	limit Pos // the log is known to be durable up to here
	w     window
}

// NewReader returns a reader of the batches after from, the end of a batch. The reader
// pins the segments that it has yet to read, and must be closed. The error is
// ErrNoPosition if the log does not continue at from, and that of Append if the log is not
// started, has failed or is closed.
func (l *Log) NewReader(from Pos) (*Reader, error) {
	pin, err := l.Pin(from.Segment)
	if err != nil {
		return nil, err
	}
	r := &Reader{log: l, pin: pin, pos: from, ended: from, limit: from, w: window{s: l.Segment(from.Segment)}}
	if err := r.checkStart(); err != nil {
		pin.Release()
		return nil, err
	}
	return r, nil
}

// checkStart returns an error unless the log can be read from r.pos to its end.
func (r *Reader) checkStart() error {
	l := r.log
	l.mu.Lock()
	end, err := l.durable, l.failed
	// Compaction may have freed segments in between.
	for n := r.pos.Segment; err == nil && n <= end.Segment; n++ {
		if l.find(n) == nil {
			err = fmt.Errorf("segment %d is not there: %w", n, ErrNoPosition)
		}
	}
	l.mu.Unlock()
	if err != nil || r.pos == end {
		return err
	}
	ok := r.pos.Seq < end.Seq
	if ok {
		ok, err = l.Follows(r.pos)
	}
	if err == nil && !ok {
		err = fmt.Errorf("batch %d does not follow at offset %d of segment %d: %w", r.pos.Seq+1, r.pos.Offset, r.pos.Segment, ErrNoPosition)
	}
	return err
}

// Next returns the number and the records of the next batch. The records are valid until
// the following call. If no further batch is durable yet, Next waits for one until ctx is
// done and then returns the error of ctx; it never waits if ctx is already done. The error
// is a *disk.Damage for a batch that has become bad, ErrFailed after the last durable batch
// of a log that failed, and ErrClosed once the log or the reader is closed.
func (r *Reader) Next(ctx context.Context) (seq uint64, recs Records, err error) {
	for {
		if err := r.wait(ctx); err != nil {
			return 0, Records{}, err
		}
		b, f, err := r.log.codec.batch(&r.w, r.pos)
		if err == nil && f != nil {
			err = r.w.s.Damage(r.pos.Offset, f.what, fmt.Sprintf("batch %d and all after it", r.pos.Seq+1))
		}
		if err != nil {
			return 0, Records{}, r.log.closedOr(err)
		}
		r.pos = b.end()
		if !b.isSeal() {
			r.ended = r.pos
			return b.seq, b.records(), nil
		}
		r.pos.Segment, r.pos.Offset = b.segment+1, pageSize
		r.w = window{s: r.log.Segment(r.pos.Segment), end: r.bound()}
		r.pin.moveTo(r.pos.Segment)
	}
}

// wait returns once the batch after r.pos is durable.
func (r *Reader) wait(ctx context.Context) error {
	l := r.log
	for {
		l.mu.Lock()
		end, failed, closed := l.durable, l.failed, l.closed || !l.pins[r.pin]
		if l.progress == nil && r.pos.Seq == end.Seq {
			l.progress = make(chan struct{})
		}
		progress := l.progress
		l.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case r.pos.Seq < end.Seq:
			if r.pos.Seq == r.limit.Seq {
				r.limit = end
				r.w.end = r.bound()
			}
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bound returns the offset up to which the window may read ahead, because bytes past the
// durable end may still change. 0 means to the end of the segment.
func (r *Reader) bound() int64 {
	if r.pos.Segment == r.limit.Segment {
		return r.limit.Offset
	}
	return 0
}

// Pos returns the end of the last batch that Next returned, or the start of the reader.
// Another reader can continue from there.
func (r *Reader) Pos() Pos { return r.pos }

// Close releases the segments. It may be called more than once.
func (r *Reader) Close() { r.pin.Release() }

// closedOr returns ErrClosed if the log is closed, because its files are closed then;
// otherwise it returns err.
func (l *Log) closedOr(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return err
}
