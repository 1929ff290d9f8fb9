package store

import (
	"errors"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
)

// Compaction runs while clients read and write; kvlog/compact.go explains how. What it moves
// goes through the queue like any other operation, a chunk at a time, so that a caller waits
// at most for one chunk more.
const (
	moveChunk = 64 << 10 // the most bytes of records in one operation, or one record if that is larger
	// CompactSlack is how many segments the log may have in addition to Options.CompactRatio
	// times the live bytes.
	CompactSlack = 2
	// compactEvery is how often the store looks for expired values if no checkpoint
	// does.
	compactEvery = time.Minute
)

// Move is the operation of compaction: it moves the records that must survive a segment.
type Move struct {
	Moves []kvlog.Move
	Bytes int // of their records
	Rest  int // about how many bytes are to be moved until the segment can be removed, including these

	// Moved is the answer: bytes appended.
	Moved int
}

// Size returns the most bytes that the operation adds to the log.
func (m *Move) Size() int { return m.Bytes }

// Frees is true: compaction gives room back in the end.
func (m *Move) Frees() bool { return true }

// Decide moves the records that are still the current ones of their keys.
func (m *Move) Decide(tx *commit.Tx) error {
	before := tx.Logged()
	for i := range m.Moves {
		r := &m.Moves[i]
		if r.Type == kvlog.TypeValue {
			tx.MoveValue(r)
		} else if err := tx.MoveTombstone(r); err != nil {
			return err // the segment stays
		}
	}
	m.Moved = tx.Logged() - before
	return nil
}

// seal is the operation that lets the log go on in its next segment.
type seal struct{}

// sealSize is an upper bound of the size of its batch in the log, in bytes.
const sealSize = 256

// Size returns 0: the moment that it notes has its room in every batch.
func (seal) Size() int { return 0 }

// Frees is true: after the seal the earlier segment can be compacted.
func (seal) Frees() bool { return true }

// Decide begins the next segment with the moment of the batch.
func (seal) Decide(tx *commit.Tx) error {
	tx.Date()
	tx.BeginSegment()
	return nil
}

// compacts reports whether a call is one of compaction, which makes room and must not
// wait for it.
func compacts(c *commit.Call) bool {
	switch c.Op.(type) {
	case *Move, seal:
		return true
	}
	return false
}

// CompactionStats count since Open.
type CompactionStats struct {
	Runs       uint64 // segments that were read to be compacted
	MovedBytes uint64 // of the records that were appended again
	Freed      uint64 // segments released
}

type compactionCounters struct{ runs, moved, freed atomic.Uint64 }

func (c *compactionCounters) stats() CompactionStats {
	return CompactionStats{Runs: c.runs.Load(), MovedBytes: c.moved.Load(), Freed: c.freed.Load()}
}

// runCompactions compacts the log when it is woken, and every compactEvery.
func (s *Store) runCompactions() {
	defer s.background.Done()
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.compactWake:
		case <-tick.C:
		case <-s.closing:
			return
		}
		s.compact()
	}
}

// compact compacts segments until the log is within its bounds, and on a full disk until there
// is room or no segment is worth it.
func (s *Store) compact() {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	// Each segment at most once, since the figures about garbage are estimates.
	for range s.Log.Stats().Segments {
		switch {
		case s.room.full.Load() && s.Log.NeedsPrepare():
			if !s.room.spend(s.room.worthwhile(0)) {
				return
			}
		case s.Values.Excess(s.CheckpointSegment(), s.o.CompactRatio, s.Clock.Now()) <= CompactSlack*s.Log.SegmentSize():
			return
		default:
			victim, ok := s.Values.Victim(s.CheckpointSegment(), s.Clock.Now())
			if !ok || !s.compactSegment(victim.Segment, int(victim.Live)) {
				return
			}
		}
	}
}

// compactSegment compacts a segment before the last checkpoint. rest is about how many bytes
// have to be moved.
func (s *Store) compactSegment(number uint64, rest int) bool {
	submit := func(moves []kvlog.Move) error {
		select {
		case <-s.closing:
			return commit.ErrStopping
		default:
		}
		moved, err := s.move(moves, rest)
		rest = max(rest-moved-moveHeader, 0)
		return err
	}
	err := submit(nil) // checks for room
	if err == nil {
		s.compaction.runs.Add(1)
		err = s.Values.Survey(number, s.nextChunk, submit, func(err error) {
			s.o.Log.Error("compaction met a damaged record: its segment will be kept", "segment", number, "err", err)
		})
	}
	switch {
	case errors.Is(err, commit.ErrFull), errors.Is(err, commit.ErrStopping), errors.Is(err, commit.ErrStopped), errors.Is(err, commit.ErrUnknown):
		return false
	case err != nil:
		s.o.Log.Error("compaction of a segment failed", "segment", number, "err", err)
		return false
	}
	if err := s.Values.Release(number); err != nil {
		s.o.Log.Error("a compacted segment cannot be freed", "segment", number, "err", err)
		return true
	}
	s.compaction.freed.Add(1)
	if s.Checkpoint() != nil {
		return false
	}
	// The freed room goes to the log first.
	err = s.room.prepare()
	return err == nil || disk.IsFull(err)
}

// moveChunk returns how many bytes of records are moved at a time.
func (s *Store) moveChunk() int { return int(min(moveChunk, s.Log.SegmentSize()/8)) }

// nextChunk returns how many bytes of records are moved next. The last chunk fills the segment
// of the log: bytes that are left unused there come back only when that segment is compacted.
func (s *Store) nextChunk() int {
	chunk := s.moveChunk()
	left := int(s.Log.Left(s.writer.Position().Log)) - moveHeader
	if left >= chunk/8 && left < chunk {
		return left
	}
	return chunk
}

// move submits the records to be moved and returns how many bytes that took.
func (s *Store) move(moves []kvlog.Move, rest int) (moved int, err error) {
	m := Move{Moves: moves}
	for i := range moves {
		m.Bytes += moves[i].Size
	}
	m.Rest = max(rest, m.Bytes)
	if err := s.writer.Do(&m); err != nil {
		return 0, err
	}
	s.compaction.moved.Add(uint64(m.Moved))
	return m.Moved, nil
}
