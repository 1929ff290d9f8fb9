package kvlog

import "fmt"

// segment returns a segment by its number, nil if there is none.
func (l *Log) segment(number uint64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(number)
}

// ScanBefore calls fn for each batch before the place that Open was given, in
// the segments from number first on that are left of those: what an index is
// built from. A bad batch is a *DamageError. An error of fn ends it.
func (l *Log) ScanBefore(first uint64, fn func(Records) error) error {
	l.mu.Lock()
	segments := l.segments
	l.mu.Unlock()
	for _, s := range segments {
		if s.number < first || s.number > l.from.Segment {
			continue
		}
		end := s.size
		if s.number == l.from.Segment {
			end = l.from.Offset
		}
		if err := l.scanSegment(s, end, fn); err != nil {
			return err
		}
	}
	return nil
}

// ScanSegment calls fn for each batch of a segment that is sealed.
func (l *Log) ScanSegment(number uint64, fn func(Records) error) error {
	s := l.segment(number)
	if s == nil {
		return fmt.Errorf("segment %d is not there", number)
	}
	return l.scanSegment(s, s.size, fn)
}

// scanSegment walks the batches of a segment that lie before end, up to its
// seal. What stood before it may be freed: its first batch says what it follows.
func (l *Log) scanSegment(s *segment, end int64, fn func(Records) error) error {
	w := window{s: s}
	pos := Pos{Segment: s.number, Offset: pageSize}
	for pos.Offset < end {
		if pos.Offset == pageSize {
			p, err := w.at(pos.Offset, batchHeader)
			if err != nil {
				return err
			}
			if h, ok := l.codec.header(p); ok {
				pos.Seq, pos.Sum = h.seq-1, h.prev
			}
		}
		b, f, err := l.codec.batch(&w, pos)
		if err != nil {
			return err
		}
		if f != nil {
			return s.damage(pos.Offset, f.what, fmt.Sprintf("batch %d and what followed it in this segment", pos.Seq+1))
		}
		if b.isSeal() {
			return nil
		}
		if err := fn(b.records()); err != nil {
			return err
		}
		pos = b.end()
	}
	return nil
}
