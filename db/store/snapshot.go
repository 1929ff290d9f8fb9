package store

import (
	"errors"
	"io/fs"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// SnapshotSegments and snapshotShare bound how much of the log a start reads
// after a crash, and how much of what is written are snapshots of the index.
const (
	SnapshotSegments = 4 // segments
	snapshotShare    = 4 // times the size of the snapshot
)

// snapshots is what is known of the index snapshot. Store.checkpointing guards it.
type snapshots struct {
	at       wal.Pos // its place in the log
	size     int64   // bytes
	appended uint64  // bytes ever logged when it was taken
	none     error   // why there is none; nil: there is one
}

// dueFor reports whether enough was logged since the last snapshot to write a new one.
func (s *snapshots) dueFor(at wal.Pos, appended uint64, segment int64, closing bool) bool {
	if closing || s.none != nil {
		return at != s.at || s.none != nil
	}
	return appended-s.appended > uint64(max(SnapshotSegments*segment, snapshotShare*s.size))
}

// saveIndex writes a snapshot. It is a cache, so a failure is only logged.
func (s *Store) saveIndex(snapshot *kvlog.Snapshot, at wal.Pos, appended uint64) {
	size, err := snapshot.Write(s.o.FS, s.o.Dir)
	if err != nil {
		s.warnOrError(err, "index snapshot not written; the next start will be slower")
		return
	}
	s.snapshot = snapshots{at: at, size: size, appended: appended}
}

// loadIndex fills the index, from the snapshot and the log behind it, or from the
// whole log.
func (d *directory) loadIndex(o *Options) error {
	from, size, err := d.state.Values.Load(o.FS, o.Dir)
	if err == nil {
		d.snapshot = snapshots{at: from, size: size}
		o.meter.expect(bytesBetween(d.log, from, d.last.Log))
		return d.log.ScanBefore(from, d.state.ApplyValues, d.state.Values.Salvage)
	}
	if d.snapshot.none = err; errors.Is(err, fs.ErrNotExist) {
		if d.last.Log.Seq == 0 {
			return nil // a new directory
		}
		err = errors.New("none was saved yet")
	}
	o.Log.Info("the index is rebuilt from the log", "why", err)
	o.meter.expect(bytesBetween(d.log, wal.Pos{}, d.last.Log))
	return d.log.ScanBefore(wal.Pos{}, d.state.ApplyValues, d.state.Values.Salvage)
}
