package store

import (
	"slices"
	"time"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// runCheckpoints runs a checkpoint when enough was logged since the last one.
func (s *Store) runCheckpoints() {
	defer s.background.Done()
	for s.wait(s.checkpointWake) {
		err := s.Checkpoint()
		if isPutOff(err) {
			select {
			case <-time.After(againAfter):
				wake(s.checkpointWake)
				continue
			case <-s.closing:
				return
			}
		}
		// A failure has stopped writes and was logged.
		if err != nil {
			return
		}
		wake(s.compactWake)
	}
}

// Checkpoint makes the tables durable up to the last applied batch, writes CHECKPOINT, and
// frees the segments that are no longer needed. Commits go on meanwhile. After an error
// writes are stopped, unless the checkpoint is put off because the disk is full.
func (s *Store) Checkpoint() error { return s.checkpoint(false, 0) }

// checkpoint also saves the index if that is due, and always if last is true. The last
// checkpoint gets tokens, a number above every token that was handed out.
func (s *Store) checkpoint(last bool, tokens uint64) error {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	if err := s.writer.Err(); err != nil {
		return err
	}
	began := time.Now()
	appended := s.Log.Stats().Appended
	at := s.writer.Position()
	c := s.last
	c.Log, c.Tokens, c.Version = at.Log, at.Tokens, at.Version
	if last {
		c.Tokens = tokens
	}
	var snapshot *kvlog.Snapshot
	// On an almost full disk the next segment comes first.
	if s.snapshot.dueFor(c.Log, appended, s.o.Segment, last) && (last || !s.Log.NeedsPrepare() && s.mayCache()) {
		snapshot = s.Values.Freeze(c.Log)
	}
	if s.names.ready.Load() && (last || s.mayCache()) {
		s.saveNames(c.Log.Seq)
		wake(s.names.wake)
	}
	c.Number++
	c.Moment = s.Clock.Read()
	// Read the high-water marks before the sync. A slot below a mark that no batch has written
	// has the image of a free slot, which is not in the log: only this sync makes it durable.
	c.Sizes, c.Used = s.Tables.Sizes(), s.Tables.Used()
	err := s.Tables.Sync()
	if err == nil {
		c.Segments = needed(s.Log, s.Values, c.Log)
		err = s.file.write(&c)
	}
	if err == nil {
		s.last = c
		s.checkpoints.segment.Store(c.Log.Segment)
		s.dropSlowBackups()
		err = s.Log.Free(c.Log.Segment, func(n uint64) bool { return slices.Contains(c.Segments, n) })
	}
	// A copy with this number may be on the disk, so never use the number again.
	s.last.Number = c.Number
	if isPutOff(err) {
		s.room.noteFull(err)
		return err
	}
	if err != nil {
		s.writer.Fail(err)
		return err
	}
	// After CHECKPOINT, because a snapshot must not be newer.
	if snapshot != nil {
		s.saveIndex(snapshot, c.Log, appended)
	}
	s.checkpoints.appended.Store(appended)
	s.checkpoints.count.Add(1)
	s.checkpoints.took.Store(int64(time.Since(began)))
	s.checkpoints.at.Store(time.Now().UnixNano())
	return nil
}

// needed returns the segments that a checkpoint at a place in the log needs: the segment of
// that place, and those before it that hold values.
func needed(l *wal.Log, v *kvlog.Values, at wal.Pos) []uint64 {
	held := v.Segments()
	return slices.DeleteFunc(l.Segments(), func(n uint64) bool {
		return n > at.Segment || n < at.Segment && !held[n]
	})
}

// freeable reports whether a checkpoint would free a segment now.
func (s *Store) freeable() bool { return len(s.unneeded()) > 0 }

// unneeded returns the segments that a checkpoint would free now, if no backup
// kept them.
func (s *Store) unneeded() []uint64 {
	at := s.writer.Position().Log
	kept := needed(s.Log, s.Values, at)
	return slices.DeleteFunc(s.Log.Segments(), func(n uint64) bool {
		_, found := slices.BinarySearch(kept, n)
		return n >= at.Segment || found
	})
}
