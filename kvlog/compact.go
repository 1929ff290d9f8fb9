package kvlog

import (
	"errors"
	"fmt"
	"math"

	"clouddragon/internal/disk"
	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// Compaction empties a segment so that it can be freed:
//
//	Victim   picks the segment before the last checkpoint that frees most
//	Survey   reads it from front to back and submits what is still needed:
//	    a value that the index points to: the writer appends it again and moves the entry
//	    one that has expired: the writer deletes the entry, and appends a tombstone if one is needed
//	    a tombstone: the writer appends it again while an older value may be in the log
//	Release  drops the segment: the next checkpoint no longer names it
//
// All that the writer appends are ordinary batches, so a crash at any point needs no
// special treatment. The last record of a key decides about the key, and only the
// writer adds records, so a record that is moved never follows a newer one.
//
// All older records of a tombstone's key are in segments up to the one that the
// tombstone was first written in, its origin. So a tombstone is dropped once the
// segment being compacted is the only one of those that is left. It is also dropped if
// its key has a value, which overrides older records just as well.

// Victim is a segment that is worth compacting.
type Victim struct {
	Segment uint64
	Live    int64 // bytes that have to be moved, an estimate
	Gain    int64 // bytes that its removal frees, an estimate
}

// Victim picks one of the segments before the given one: the one with most to gain, or
// the oldest if that gain is less than a quarter of it, because old tombstones can only
// be dropped once the oldest segments are gone. ok is false if there is none. now is in
// database time.
func (v *Values) Victim(before uint64, now int64) (pick Victim, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	oldest := v.oldest()
	var first, best Victim
	var size int64
	for n, h := range v.byNumber {
		if n >= before || h.damaged {
			continue
		}
		c := h.victim(n, oldest, now)
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

// Spendable picks the segment before the given one whose compaction makes most room for
// new batches. The unused end of a segment is no gain, because the same values leave as
// much unused in another segment. ok is false if there is none.
func (v *Values) Spendable(before uint64, now int64) (pick Victim, ok bool, err error) {
	v.mu.RLock()
	var all []Victim
	var segments []*wal.Segment
	oldest := v.oldest()
	for n, h := range v.byNumber {
		if n < before && !h.damaged {
			all, segments = append(all, h.victim(n, oldest, now)), append(segments, h.seg)
		}
	}
	v.mu.RUnlock()
	for i, c := range all {
		used, err := segments[i].Used()
		if err != nil {
			return Victim{}, false, err
		}
		c.Gain = used - c.Live
		if !ok || c.Gain > pick.Gain || c.Gain == pick.Gain && c.Segment < pick.Segment {
			pick, ok = c, true
		}
	}
	return pick, ok, nil
}

// Active returns the active segment, filled up to pos, as a victim. It can be compacted
// once the log continues in the next segment, which has room for next bytes. Its gain is
// by how much the compaction increases the room in the log.
func (v *Values) Active(pos wal.Pos, next, now int64) Victim {
	v.mu.RLock()
	defer v.mu.RUnlock()
	c := Victim{Segment: pos.Segment}
	if h := v.byNumber[pos.Segment]; h != nil {
		c = h.victim(pos.Segment, v.oldest(), now)
	}
	c.Gain = next - c.Live - v.log.Left(pos)
	return c
}

// oldest requires v.mu to be held.
func (v *Values) oldest() uint64 {
	oldest := uint64(math.MaxUint64)
	for n := range v.byNumber {
		oldest = min(oldest, n)
	}
	return oldest
}

// victim returns what a compaction of segment n would move and free.
func (h *segmentStats) victim(n, oldest uint64, now int64) Victim {
	c := Victim{Segment: n, Live: max(h.live-h.expiries.expired(now), 0)}
	if n > oldest {
		c.Live += h.tombstones
	}
	c.Gain = h.seg.Size() - c.Live
	return c
}

// Excess returns by how many bytes the segments before the given one exceed ratio times
// the live bytes. Segments that cannot be released do not count.
func (v *Values) Excess(before uint64, ratio float64, now int64) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var size, live int64
	for n, h := range v.byNumber {
		if h.damaged {
			continue
		}
		live += h.live - h.expiries.expired(now)
		if n < before {
			size += h.seg.Size()
		}
	}
	return size - int64(ratio*float64(live))
}

// Move is a record of the compacted segment that is still needed.
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
	Origin  uint64 // of a tombstone
	Found   Found  // of a tombstone: the result of looking up its key
}

// Survey reads a segment before the last checkpoint and submits the records that are
// still needed, in chunks. chunk is called before each and returns its largest size in
// bytes; a single record may be larger. An error of submit ends the survey and is
// returned. A damaged record is reported to damage and stays where it is: its segment is
// never released.
func (v *Values) Survey(number uint64, chunk func() int, submit func([]Move) error, damage func(error)) error {
	v.mu.RLock()
	h := v.byNumber[number]
	v.mu.RUnlock()
	if h == nil {
		return nil
	}
	s := survey{v: v, h: h, chunk: chunk, limit: chunk(), submit: submit, damage: func(err error) {
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

// hold makes sure that a segment is never released.
func (v *Values) hold(h *segmentStats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h.damaged = true
}

type survey struct {
	v      *Values
	h      *segmentStats
	chunk  func() int
	submit func([]Move) error
	damage func(error)

	moves []Move // the current chunk
	limit int    // the most bytes of records in it
	size  int    // bytes of its records
	buf   []byte // their bodies
}

func (s *survey) records(recs wal.Records) error {
	for rec := range recs.All() {
		m, err := s.look(rec)
		if disk.IsNoDescriptor(err) {
			return err // not a damaged record
		}
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
			s.limit = s.chunk()
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
	s.limit = s.chunk()
	return err
}

// look returns the move that a record needs; its Type is 0 if it needs none.
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

// Needed reports whether a tombstone with that origin is still needed once the segment
// gone is freed: whether another segment is left that may hold an older value.
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

// Release drops a segment from which everything was moved: Segments no longer names it.
// It does not rely on the figures. It searches the whole index for an entry that points
// to the segment, and returns an error if there is one.
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
	first, span := uint64(h.ordinal), uint64(v.span(h.seg.Size()))
	var entries []uint64
	for i := range v.index.Shards() {
		entries = v.index.AppendShard(i, entries[:0])
		for _, e := range entries {
			if hashindex.Location(e)>>v.offsetBits-first < span {
				v.hold(h)
				return fmt.Errorf("%w: the index points to offset %d of segment %d, where no value of its key was found",
					errHeld, v.offset(h, hashindex.Location(e)), number)
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(h)
	return nil
}
