package store

import (
	"errors"

	"clouddragon/kvlog/wal"
)

// Access for tests of the packages above, and steps that otherwise run in the background.

// CheckpointName is the name of the file that holds the checkpoints.
const CheckpointName = checkpointName

// CheckpointSegment returns the segment of the last checkpoint's position.
func (s *Store) CheckpointSegment() uint64 { return s.checkpoints.segment.Load() }

// PauseCompaction waits until no segment is being compacted, and prevents compaction until
// resume is called.
func (s *Store) PauseCompaction() (resume func()) {
	s.compacting.Lock()
	return s.compacting.Unlock
}

// Compact compacts segments until the log is within its bounds.
func (s *Store) Compact() { s.compact() }

// CompactSegment compacts a segment before the last checkpoint, whether it is worth it or not.
// It returns false if the segment could not be freed.
func (s *Store) CompactSegment(number uint64) bool {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	return s.compactSegment(number, 0)
}

// PrepareSegment makes the next segment of the log ready, if it is not.
func (s *Store) PrepareSegment() error { return s.room.prepare() }

// Snapshot returns the place in the log of the last index snapshot, or why there is none.
func (s *Store) Snapshot() (at wal.Pos, none error) {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	return s.snapshot.at, s.snapshot.none
}

// CheckpointWithSnapshot runs a checkpoint that saves the index, due or not.
func (s *Store) CheckpointWithSnapshot() error {
	s.checkpointing.Lock()
	s.snapshot.none = errors.New("one is due")
	s.checkpointing.Unlock()
	return s.Checkpoint()
}

// SegmentSize returns the size of a new segment, in bytes.
func (s *Store) SegmentSize() int64 { return s.o.Segment }
