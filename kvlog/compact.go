package kvlog

import (
	"errors"
	"fmt"
	"math"

	"clouddragon/internal/disk"
	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// Compaction, by whoever submits what it finds to the writer:
//
//	Victim picks the segment before the last checkpoint with most to gain
//	Survey reads it from front to back, and hands over what must not go with it:
//	    a value that the index points to: the writer appends the same record, and moves the entry
//	    one whose time is over: the writer deletes the entry, and appends a mark where one is needed
//	    a mark: the writer appends it again while an older value may be in the log
//	Release lets the segment go: the next checkpoint no longer names it
//
// All that the writer does there are ordinary batches, so that a crash at any
// point needs nothing special. The last record of a key in the log decides on it,
// and only the writer adds one, so that no moved record comes after a newer one.
//
// A mark may be dropped once no segment is left, but for the one that is
// compacted, which is as old as the segment that the mark was first written in:
// all older records of its key are in those. It may be dropped too if its key has
// a value, which does the same as the stone.

// Victim is a segment that is worth compacting.
type Victim struct {
	Segment uint64
	Live    int64 // about how many bytes will have to be moved
	Gain    int64 // about how many bytes its removal gives back
}

// Victim picks one of the segments before that one: the one with most to gain,
// or the oldest if that is less than a quarter of it, since only then old marks
// can go. ok is false if there is none. now is in database time.
func (v *Values) Victim(before uint64, now int64) (pick Victim, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	oldest := uint64(math.MaxUint64)
	for n := range v.byNumber {
		oldest = min(oldest, n)
	}
	var first, best Victim
	var size int64
	for n, h := range v.byNumber {
		if n >= before || h.damaged {
			continue
		}
		c := Victim{Segment: n, Live: h.live - h.ends.over(now)}
		if n > oldest {
			c.Live += h.marks
		}
		c.Gain = h.seg.Size() - c.Live
		if first.Segment == 0 || n < first.Segment {
			first = c
		}
		if best.Segment == 0 || c.Gain > best.Gain || c.Gain == best.Gain && n < best.Segment {
			best, size = c, h.seg.Size()
		}
	}
	if best.Gain < size/4 {
		best = first
	}
	return best, best.Segment != 0
}

// Excess says by how many bytes the segments before that one exceed ratio times
// what of the values is live. Segments that cannot be released do not count.
func (v *Values) Excess(before uint64, ratio float64, now int64) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var size, live int64
	for n, h := range v.byNumber {
		if h.damaged {
			continue
		}
		live += h.live - h.ends.over(now)
		if n < before {
			size += h.seg.Size()
		}
	}
	return size - int64(ratio*float64(live))
}

// Move is a record that must not go with the segment that holds it.
type Move struct {
	Type    uint8 // TypeValue, TypeTombstone
	Acc, ID string
	Hash    uint64
	From    uint64 // the segment that is compacted
	Size    int    // bytes of its record in the log
	Body    []byte // of a value; valid until submit returns
	Version uint64 // of a value
	Expires int64  // of a value, as in Value
	Loc     uint64 // of a value
	Origin  uint64 // of a mark
	Found   Found  // of a mark: what the key has instead
}

// Survey reads a segment before the last checkpoint and calls submit for what
// must not go with it, in chunks of at most so many bytes, or one record where that
// is larger; an error of submit ends it. A record that is damaged stays: damage is
// called with it, and the segment will never be released.
func (v *Values) Survey(number uint64, chunk int, submit func([]Move) error, damage func(error)) error {
	v.mu.RLock()
	h := v.byNumber[number]
	v.mu.RUnlock()
	if h == nil {
		return fmt.Errorf("segment %d holds no values", number)
	}
	s := survey{v: v, h: h, limit: chunk, submit: submit, damage: func(err error) {
		v.damaged.Add(1)
		v.hold(h)
		damage(err)
	}}
	err := v.log.ScanSegment(h.seg, s.records, v.Salvage, func(d *disk.Damage) { s.damage(d) })
	if err == nil {
		err = s.flush()
	}
	return err
}

// hold keeps a segment for good.
func (v *Values) hold(h *holder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h.damaged = true
}

type survey struct {
	v      *Values
	h      *holder
	limit  int
	submit func([]Move) error
	damage func(error)

	moves []Move
	size  int
	buf   []byte // bodies of moves
}

func (s *survey) records(recs wal.Records) error {
	for rec := range recs.All() {
		m, err := s.look(rec)
		if err != nil {
			s.damage(fmt.Errorf("%s at offset %d: %w", s.h.seg.Path(), rec.Offset, err))
			continue
		}
		if m.Type == 0 {
			continue
		}
		if s.size > 0 && s.size+m.Size > s.limit {
			if err := s.flush(); err != nil {
				return err
			}
		}
		if m.Size > s.limit {
			if err := s.submit([]Move{m}); err != nil {
				return err
			}
			continue
		}
		if s.buf == nil {
			s.buf = make([]byte, 0, s.limit)
		}
		at := len(s.buf)
		s.buf = append(s.buf, m.Body...)
		m.Body = s.buf[at:]
		s.moves = append(s.moves, m)
		s.size += m.Size
	}
	return nil
}

func (s *survey) flush() error {
	if len(s.moves) == 0 {
		return nil
	}
	err := s.submit(s.moves)
	clear(s.moves)
	s.moves, s.size, s.buf = s.moves[:0], 0, s.buf[:0]
	return err
}

// look returns what of a record must be moved; nothing if its Type is 0.
func (s *survey) look(rec wal.Record) (Move, error) {
	v := s.v
	m := Move{From: s.h.seg.Number(), Size: wal.RecordSize(len(rec.Body))}
	switch rec.Type {
	case TypeValue:
		val, _, err := v.codec.head(rec.Body)
		if err != nil {
			return Move{}, err
		}
		m.Hash = v.hash(val.Acc, val.ID)
		m.Loc = v.location(s.h, rec.Offset)
		if !v.Points(m.Hash, m.Loc) {
			return Move{}, nil
		}
		if _, err := v.codec.decodeValue(rec.Body); err != nil {
			return Move{}, err
		}
		m.Type, m.Acc, m.ID, m.Body = TypeValue, string(val.Acc), string(val.ID), rec.Body
		m.Version, m.Expires = val.Version, val.Expires
	case TypeTombstone:
		stone, err := DecodeTombstone(rec.Body)
		if err != nil {
			return Move{}, err
		}
		m.Origin = stone.Origin
		if m.Origin == 0 {
			m.Origin = m.From
		}
		if !v.Needed(m.Origin, m.From) {
			return Move{}, nil
		}
		m.Acc, m.ID = string(stone.Acc), string(stone.ID)
		m.Hash = v.Hash(m.Acc, m.ID)
		if m.Found, err = v.Find(m.Acc, m.ID, m.Hash); err != nil {
			return Move{}, err
		}
		if !m.Found.OK {
			m.Type = TypeTombstone
		}
	}
	return m, nil
}

// Needed says whether a mark with that origin is needed once a segment is gone:
// whether another one is left that may hold an older value.
func (v *Values) Needed(origin, gone uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for n := range v.byNumber {
		if n <= origin && n != gone {
			return true
		}
	}
	return false
}

// errHeld is returned when a segment is still needed after its compaction.
var errHeld = errors.New("the segment is kept")

// Release lets a segment go of which everything was moved: Segments no longer
// names it. It goes by no figures: it looks through the whole index for an entry
// that points there, and refuses if there is one.
func (v *Values) Release(number uint64) error {
	v.mu.RLock()
	h := v.byNumber[number]
	bad := h != nil && h.damaged
	v.mu.RUnlock()
	if h == nil {
		return nil
	}
	if bad {
		return fmt.Errorf("%w: segment %d has damaged records", errHeld, number)
	}
	var entries []uint64
	for i := range v.index.Shards() {
		entries = v.index.AppendShard(i, entries[:0])
		for _, e := range entries {
			if int(hashindex.Location(e)>>v.offsetBits) == h.ordinal {
				v.hold(h)
				return fmt.Errorf("%w: the index points to offset %d of segment %d, where no value of its key was found",
					errHeld, v.offset(hashindex.Location(e)), number)
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holders[h.ordinal] = nil
	delete(v.byNumber, number)
	return nil
}
