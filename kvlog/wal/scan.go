package wal

import (
	"fmt"

	"clouddragon/internal/disk"
)

// Salvage decides about a batch that fails its checksum although its header is good and
// its records are well-formed. It returns true if the records can still be used because
// each of them has its own checksum. A nil Salvage accepts no such batch.
type Salvage func(Records) bool

// ScanBefore calls fn for each batch between from, which is the zero Pos or the end of a
// batch, and the position that was passed to Open. The error is a *disk.Damage for a bad
// batch that salvage does not accept. An error of fn ends the scan and is returned.
func (l *Log) ScanBefore(from Pos, fn func(Records) error, salvage Salvage) error {
	l.mu.Lock()
	segments := l.segments
	l.mu.Unlock()
	counted := func(recs Records) error {
		l.o.Read(batchHeader + int64(len(recs.bytes)))
		return fn(recs)
	}
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
		if err := l.scanSegment(s, pos, end, counted, salvage, nil); err != nil {
			return err
		}
	}
	return nil
}

// ScanSegment calls fn for each batch of a sealed segment. A bad batch
// that salvage does not accept is reported to skip, and the scan continues with the
// next batch that has a good header. An error of fn ends the scan and is returned.
func (l *Log) ScanSegment(s *Segment, fn func(Records) error, salvage Salvage, skip func(*disk.Damage)) error {
	return l.scanSegment(s, Pos{Segment: s.number, Offset: pageSize}, s.size, fn, salvage, skip)
}

// Follows reports whether there is a good batch at pos that continues the chain of the
// batch before it. It returns false if the segment is not there.
func (l *Log) Follows(pos Pos) (bool, error) {
	s := l.Segment(pos.Segment)
	if s == nil || pos.Offset < pageSize || pos.Offset >= s.size || pos.Offset%8 != 0 {
		return false, nil
	}
	_, f, err := l.codec.batch(&window{s: s}, pos)
	return err == nil && f == nil, err
}

// scanSegment calls fn for each batch of a segment from pos to end, or to the seal.
// The segment before may have been freed, so the first batch of the segment may follow any
// batch. Without skip a bad batch ends the scan. With skip the damage is reported to it,
// and the scan continues with the next batch that has a good header.
func (l *Log) scanSegment(s *Segment, pos Pos, end int64, fn func(Records) error, salvage Salvage, skip func(*disk.Damage)) error {
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
		if err == nil && f != nil && salvage != nil && l.codec.unchecked(&w, pos, &b) && salvage(b.records()) {
			f = nil
		}
		if err != nil {
			return err
		}
		if f != nil {
			damage := s.Damage(pos.Offset, f.what, fmt.Sprintf("batch %d and what followed it in this segment", pos.Seq+1))
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

// unchecked reads the batch at pos without checking the checksum of its records. It
// returns false if the header is bad or does not belong at pos, or the records are
// malformed.
func (c codec) unchecked(w *window, pos Pos, b *batch) bool {
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
	return true
}
