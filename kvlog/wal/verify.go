package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// Verify reads every batch of every segment that the checkpoint names or that follows
// (from and segments are as for Open), and reports each damage. It writes nothing. It
// returns where the log ends; a torn tail there is not damage, see Tail.Torn. The error
// says that files could not be opened. Verify holds one batch in memory, or 256 KiB if that
// is more.
func Verify(o Options, from Pos, segments []uint64, report func(*disk.Damage)) (Tail, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Tail{}, err
	}
	all, _, err := o.openAll(from, segments)
	told := map[*disk.Damage]bool{} // a bad segment can be found twice: on its own, and as the successor of another
	v := verifier{Log: &Log{o: o, codec: newCodec(o.ID), from: from, segments: all}, named: segments, report: func(d *disk.Damage) {
		if !told[d] {
			told[d] = true
			report(d)
		}
	}}
	if err == nil {
		v.verify()
	}
	return v.tail, errors.Join(err, v.Close())
}

type verifier struct {
	*Log
	named  []uint64
	report func(*disk.Damage)

	end    Pos  // after the last good batch
	sealed bool // that batch is a seal
	passed bool // the walk has reached or passed from
	ended  bool // the end of the log was found
	tail   Tail
}

func (v *verifier) verify() {
	for i, s := range v.segments {
		follows := s.number == 1 // the chain into this segment is known
		if i > 0 {
			before := v.segments[i-1].number
			follows = v.sealed && s.number == before+1
			if s.number > v.from.Segment && s.number != before+1 {
				v.report(v.missing(before+1, s.number))
			}
		}
		if s.bad != nil && (!s.unmade || follows || s.number <= v.from.Segment || slices.Contains(v.named, s.number)) {
			v.report(s.bad)
		}
		v.sealed = false
		if s.file != nil && !v.ended {
			v.walk(s, follows)
		}
	}
	if v.sealed {
		_, err := v.successor(v.end.Segment)
		v.reportAt(nil, Pos{}, err)
	}
	if s := v.find(v.from.Segment); !v.passed && s.file != nil {
		v.reportFrom(s, v.end)
	}
	if !v.ended {
		v.tail = Tail{End: v.end}
	}
}

// walk checks the batches of a segment. After a bad one it continues with the next
// batch that has a good header.
func (v *verifier) walk(s *Segment, follows bool) {
	pos := Pos{Segment: s.number, Offset: pageSize, Seq: v.end.Seq, Sum: v.end.Sum}
	w := window{s: s}
	if !follows {
		// The segment before it was freed or is bad, so the first batch may follow any
		// batch.
		if s.number == v.from.Segment && pos.Offset == v.from.Offset {
			pos = v.from
		} else if p, err := w.at(pos.Offset, batchHeader); err == nil {
			if h, ok := v.codec.header(p); ok && h.isAt(s.number, pos.Offset) && h.seq > v.end.Seq {
				pos.Seq, pos.Sum = h.seq-1, h.prev
			}
		}
	}
	for {
		v.checkFrom(s, pos)
		b, f, err := v.codec.batch(&w, pos)
		if err != nil {
			v.reportAt(s, pos, err)
			return
		}
		if f == nil {
			v.o.Read(int64(b.length))
			v.end, v.sealed = b.end(), b.isSeal()
			if v.sealed {
				return
			}
			pos = v.end
			continue
		}
		next, ok, err := v.resync(s, pos, f)
		if err != nil {
			v.reportAt(s, pos, err)
		}
		if !ok {
			return
		}
		pos = next
	}
}

// resync handles a position without a good batch: it reports the damage, or records the
// end of the log. next is where the walk continues; ok is false if there is no such place
// in this segment.
func (v *verifier) resync(s *Segment, pos Pos, f *fault) (next Pos, ok bool, err error) {
	later, err := v.codec.scan(s, pos.Offset, pos.Seq+1, true)
	if err != nil {
		return Pos{}, false, err
	}
	// The checkpoint proves that everything before from was durable.
	durable := s.number < v.from.Segment || s.number == v.from.Segment && pos.Offset < v.from.Offset
	if !later.found && !durable {
		v.tail = Tail{End: pos}
		err := v.classifyTail(&v.tail, s, f)
		v.ended = err == nil
		return Pos{}, false, err
	}
	lost := fmt.Sprintf("batch %d and what followed it in this segment", pos.Seq+1)
	if h := later.first; later.found {
		lost = fmt.Sprintf("batches %d to %d", pos.Seq+1, h.seq-1)
		next, ok = Pos{Segment: s.number, Offset: int64(h.offset), Seq: h.seq - 1, Sum: h.prev}, true
	}
	if durable && s.number == v.from.Segment && (!ok || next.Offset > v.from.Offset) {
		lost = fmt.Sprintf("batches %d to %d", pos.Seq+1, v.from.Seq)
		next, ok = v.from, true
	}
	v.report(s.Damage(pos.Offset, f.what, lost))
	return next, ok, nil
}

// checkFrom reports damage if the walk reaches or passes from, and the batch that the
// checkpoint names does not end there.
func (v *verifier) checkFrom(s *Segment, pos Pos) {
	if v.passed || s.number != v.from.Segment || pos.Offset < v.from.Offset {
		return
	}
	v.passed = true
	if pos != v.from {
		v.reportFrom(s, pos)
	}
}

func (v *verifier) reportFrom(s *Segment, pos Pos) {
	v.report(s.Damage(v.from.Offset, fmt.Sprintf("CHECKPOINT says that batch %d with checksum %08x ends here, but batch %d with checksum %08x ends at offset %d of segment %d",
		v.from.Seq, v.from.Sum, pos.Seq, pos.Sum, pos.Offset, pos.Segment), "every batch from there on"))
}

// reportAt reports an error: damage as it is, any other error as damage at pos, because
// pos cannot be read.
func (v *verifier) reportAt(s *Segment, pos Pos, err error) {
	var damage *disk.Damage
	switch {
	case err == nil:
	case errors.As(err, &damage):
		v.report(damage)
	default:
		v.report(s.Damage(pos.Offset, err.Error(), fmt.Sprintf("batch %d and what followed it in this segment", pos.Seq+1)))
	}
}
