package store

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// A store that follows another server's log changes nothing by itself: no operation is
// decided, nothing is compacted, no moment is noted. It checkpoints on its own, keeps
// its tables and the next segment ready, and frees the segments that the other server
// has freed.

// Follow returns the store's follower and starts the background goroutines. It is called
// instead of Start. named is called with everything that a batch stores; see
// commit.NewFollower.
func (s *Store) Follow(named func(kind uint8, acc, id string)) *commit.Follower {
	s.background.Add(4)
	go s.followLog()
	go s.room.keepTables()
	go s.runCheckpoints()
	go s.keepNames()
	wake(s.room.tableWake)
	return commit.NewFollower(s.writer, func(kind uint8, acc, id string) {
		s.AddName(kind, acc, id)
		named(kind, acc, id)
	})
}

// followLog keeps the next segment ready, as large as the one before.
func (s *Store) followLog() {
	defer s.background.Done()
	for s.wait(s.room.logWake) {
		// The batch that needs the segment tries again and reports a failure.
		if err := s.Log.PrepareAhead(); err != nil && !disk.IsFull(err) {
			s.o.Log.Warn("the next segment of the log is not ready", "err", err)
		}
	}
}

// Segments returns the numbers of the segments that a follower needs up to a position.
func (s *Store) Segments() (at wal.Pos, numbers []uint64) {
	at = s.writer.Position().Log
	return at, needed(s.Log, s.Values, at)
}

// ReleaseOthers releases the segments before at that are not among those given: the other
// server has freed them. Any values in them that the index still has have expired. The next
// checkpoint frees the segments.
func (s *Store) ReleaseOthers(at wal.Pos, numbers []uint64) error {
	if s.writer.Position().Log.Seq < at.Seq {
		return nil // the moves are not applied yet
	}
	for n := range s.Values.Segments() {
		if _, needed := slices.BinarySearch(numbers, n); needed || n >= at.Segment {
			continue
		}
		if err := s.releaseOne(n); err != nil {
			return err
		}
		s.compaction.freed.Add(1)
	}
	return nil
}

func (s *Store) releaseOne(number uint64) error {
	var live error
	expire := func(moves []kvlog.Move) error {
		for i := range moves {
			m := &moves[i]
			switch {
			case m.Type != kvlog.TypeValue:
			case m.Expires == 0:
				live = fmt.Errorf("segment %d was freed by the other server, and has the value of %q of account %q", number, m.ID, m.Acc)
				return live
			default:
				s.Values.Apply(wal.Pos{Segment: number}, []kvlog.Step{{Hash: m.Hash, At: -1, Old: kvlog.Found{OK: true, Loc: m.Loc, Size: m.Size, Expires: m.Expires}}})
			}
		}
		return nil
	}
	var damage error
	err := s.Values.Survey(number, s.moveChunk, expire, func(err error) { damage = errors.Join(damage, err) })
	if err = errors.Join(err, damage); err != nil {
		return err
	}
	return s.Values.Release(number)
}

// Ends returns the ends of the last batches in the log of a data directory, newest first. It
// changes nothing. The last of the ends is the position of the checkpoint, before which
// nothing can be cut.
func Ends(o Options, most int) (id [16]byte, ends []wal.Pos, err error) {
	o.defaults()
	o.meter = newMeter(nil)
	err = withLog(&o, func(l *wal.Log) error {
		id = l.ID()
		ends, err = l.Ends(most)
		return err
	})
	return id, ends, err
}

// Cut cuts the log of a data directory after the end of a batch, and makes that segment at
// least the given size. See wal.Log.CutTo.
func Cut(o Options, at wal.Pos, size int64) error {
	o.defaults()
	o.meter = newMeter(nil)
	return withLog(&o, func(l *wal.Log) error { return l.CutTo(at, size) })
}

// Raise raises the next version and the next token of a data directory that no server has
// open.
func Raise(o Options, by uint64) error {
	o.defaults()
	file, c, err := openCheckpoint(o.FS, o.Dir)
	if err != nil {
		return err
	}
	c.Number++
	c.Version += by
	c.Tokens += by
	return errors.Join(file.write(c), file.f.Close())
}

// withLog calls fn with the log of a directory that no server has open.
func withLog(o *Options, fn func(*wal.Log) error) (err error) {
	lock, err := lockDir(o)
	if err != nil {
		return err
	}
	if lock != nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	file, last, err := openCheckpoint(o.FS, o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.f.Close()) }()
	l, err := wal.Open(logOptions(o, last.ID), last.Log, last.Segments)
	if err != nil {
		return err
	}
	return errors.Join(fn(l), l.Close())
}
