package store

import (
	"context"
	"fmt"
	"time"

	"clouddragon/kvlog/wal"
)

// How much of the log a backup may keep, and when it is ended.

// dropBackups ends the backups that keep one of the segments, which a full disk needs.
func (s *Store) dropBackups(segments ...uint64) {
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	for b := range s.backups.all {
		for _, n := range segments {
			if b.pin.Keeps(n) {
				b.cancel(ErrBackupRoom)
				b.pin.Release()
				s.o.Log.Warn("a backup was given up, since the disk is full and needs the log that was kept for it")
			}
		}
	}
}

// dropSlowBackups ends the backups that keep too much of the log. A backup looks after that by
// itself, but not while it waits for its reader.
func (s *Store) dropSlowBackups() {
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	for b := range s.backups.all {
		if n := b.held(); n > s.o.BackupHold && b.ctx.Err() == nil {
			b.cancel(fmt.Errorf("%w: %d bytes", ErrBackupHold, n))
			b.pin.Release()
		}
	}
}

// check returns why the backup has to end.
func (b *backup) check() error {
	select {
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	case <-b.s.closing:
		return wal.ErrClosed
	default:
	}
	if time.Since(b.looked) < holdInterval {
		return nil
	}
	b.looked = time.Now()
	if b.keeps = b.held(); b.keeps > b.s.o.BackupHold {
		return fmt.Errorf("%w: %d bytes", ErrBackupHold, b.keeps)
	}
	return nil
}

// held returns how many bytes of the log would be freed without this backup.
func (b *backup) held() int64 {
	held := int64(0)
	for _, n := range b.s.unneeded() {
		if seg := b.s.Log.Segment(n); seg != nil && b.pin.Keeps(n) {
			held += seg.Size()
		}
	}
	return held
}
