package kvlog

import "fmt"

// segment returns a segment by its number, nil if there is none.
func (l *Log) segment(number uint64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(number)
}

// ScanBefore calls fn for each batch that lies between two places: from, which is
// the zero Pos or behind a batch, and the one that Open was given. It is what an
// index is built from. A batch of which only the data of values is bad passes:
// each value has a checksum of its own. Any other that is bad is a *DamageError.
// An error of fn ends it.
func (l *Log) ScanBefore(from Pos, fn func(Records) error) error {
	l.mu.Lock()
	segments := l.segments
	l.mu.Unlock()
	for _, s := range segments {
		if s.number < from.Segment || s.number > l.from.Segment {
			continue
		}
		pos, end := Pos{Segment: s.number, Offset: pageSize}, s.size
		if s.number == from.Segment {
			pos = from
		}
		if s.number == l.from.Segment {
			end = l.from.Offset
		}
		if err := l.scanSegment(s, pos, end, fn, nil); err != nil {
			return err
		}
	}
	return nil
}

// scanSegment walks the batches of a segment from pos to end, or up to its seal.
// What stood before the segment may be freed: its first batch says what it
// follows. Without skip a bad batch ends it; with skip that is called, and the
// walk goes on with the next batch that has a good header.
func (l *Log) scanSegment(s *segment, pos Pos, end int64, fn func(Records) error, skip func(*DamageError)) error {
	w := window{s: s}
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
		if err == nil && f != nil && l.codec.salvage(&w, pos, &b) {
			f = nil
		}
		if err != nil {
			return err
		}
		if f != nil {
			damage := s.damage(pos.Offset, f.what, fmt.Sprintf("batch %d and what followed it in this segment", pos.Seq+1))
			if skip == nil {
				return damage
			}
			skip(damage)
			later, err := l.codec.scan(s, pos.Offset+8, pos.Seq, true)
			if err != nil || !later.found {
				return err
			}
			h := later.first
			pos.Offset, pos.Seq, pos.Sum = int64(h.offset), h.seq-1, h.prev
			continue
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

// salvage reads the batch at pos although its checksum is bad, if that is since
// the data of values is: whatever else it holds is good then.
func (c codec) salvage(w *window, pos Pos, b *batch) bool {
	left := w.s.size - pos.Offset
	if left < batchHeader {
		return false
	}
	p, err := w.at(pos.Offset, batchHeader)
	if err != nil {
		return false
	}
	h, ok := c.header(p)
	if !ok || h.checkPlace(pos, left) != nil {
		return false
	}
	if p, err = w.at(pos.Offset, int(h.length)); err != nil || checkRecords(p[batchHeader:], h.count) != "" {
		return false
	}
	*b = batch{header: h, bytes: p}
	bad := false
	for r := range b.records().All() {
		if r.Type != TypeValue {
			continue
		}
		v, end, err := c.head(r.Body)
		if err != nil || len(r.Body)-end != v.Length {
			return false
		}
		bad = bad || SumValue(r.Body[end:]) != v.Sum
	}
	return bad
}
