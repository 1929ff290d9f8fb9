package db

import (
	"errors"
	"io/fs"

	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// snapshotSegments and snapshotShare bound how much of the log a start reads
// after a crash, and how much of what is written are snapshots of the index.
const (
	snapshotSegments = 4 // segments
	snapshotShare    = 4 // times the size of the snapshot
)

// snapshots is what is known of the index snapshot. DB.ckptMu guards it.
type snapshots struct {
	at       wal.Pos // its place in the log
	size     int64   // bytes
	appended uint64  // bytes ever logged when it was taken
	none     error   // why there is none; nil: there is one
}

// dueFor says whether a snapshot is worth its while.
func (s *snapshots) dueFor(at wal.Pos, appended uint64, segment int64, closing bool) bool {
	if closing || s.none != nil {
		return at != s.at || s.none != nil
	}
	return appended-s.appended > uint64(max(snapshotSegments*segment, snapshotShare*s.size))
}

// saveIndex writes a snapshot. It is a cache, so that a failure is only logged.
func (d *DB) saveIndex(s *kvlog.Snapshot, at wal.Pos, appended uint64) {
	size, err := s.Write(d.fs, d.dir)
	switch {
	case disk.IsFull(err):
		d.logger.Warn("disk full: the index is not saved, so that a start takes longer", "err", err)
	case err != nil:
		d.logger.Error("the index is not saved, so that a start takes longer", "err", err)
	default:
		d.snapshot = snapshots{at: at, size: size, appended: appended}
	}
}

// loadIndex fills the index, from the snapshot and the log behind it, or from the
// whole log.
func (r *directory) loadIndex(o *Options) error {
	from, size, err := r.values.Load(o.FS, o.Dir)
	if err == nil {
		r.snapshot = snapshots{at: from, size: size}
		return r.log.ScanBefore(from, r.replayValues, r.values.Salvage)
	}
	if r.snapshot.none = err; errors.Is(err, fs.ErrNotExist) {
		if r.state.Log.Seq == 0 {
			return nil // a new directory
		}
		err = errors.New("none was saved yet")
	}
	o.Log.Info("the index is rebuilt from the log", "why", err)
	return r.log.ScanBefore(wal.Pos{}, r.replayValues, r.values.Salvage)
}
