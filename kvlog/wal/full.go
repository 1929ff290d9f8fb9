package wal

import (
	"fmt"

	"clouddragon/internal/disk"
)

// A segment's blocks are allocated before a batch is written to it. Still the write can
// find the disk full: a copy-on-write file system needs new blocks where a copy or a
// snapshot shares the old ones, and btrfs can need them anywhere.
//
// Such a batch is refused, so it must not reappear, and the next batch goes to the same
// place. The failed write may have stored the first bytes of the batch. They are
// overwritten with zeros, and the zeros are synced, before the refusal. If the power is
// cut
//
//	before the sync     the call has no answer yet: the batch may be there or not
//	after it            nothing of the batch is there
//
// The zeros can find no room either. The part of the batch that was not written reads as
// zeros. If the batch has anything but zeros there, its checksum fails, whatever the disk
// has of the rest, and recovery takes it for a torn tail. Then the batch is refused, and
// the zeros are written before the next batch. They are needed: the next batch may end
// with the same bytes as this one, and if the power is cut while it is written, the old
// beginning and the new end would make up the refused batch.
//
// If the part that was not written is all zeros, the batch is complete. Only then, if the
// zeros find no room, is the outcome unknown, and the log has failed.

// takeBack erases the first n bytes of a batch that found no room, and returns ErrFull
// or a final error.
func (l *Log) takeBack(batch []byte, n int, full error) error {
	if n > 0 {
		l.left = l.end.Offset + int64(n)
		err := l.clearLeft()
		if disk.IsFull(err) && l.err == nil && onlyZeros(batch[n:]) {
			return l.fail(full) // not ErrFull: the batch may be there
		}
		if l.err != nil {
			return l.err
		}
	}
	return l.full(full)
}

// clearLeft erases what takeBack could not.
func (l *Log) clearLeft() error {
	if l.left == 0 {
		return nil
	}
	err := zero(l.active, l.end.Offset, l.left)
	if disk.IsFull(err) {
		return l.full(err)
	}
	if err == nil {
		err = l.active.file.Sync()
	}
	if err != nil {
		return l.fail(err)
	}
	l.left = 0
	return nil
}

func (l *Log) full(err error) error {
	return fmt.Errorf("%w: batch %d at offset %d of %s: %w", ErrFull, l.end.Seq+1, l.end.Offset, l.active.path, err)
}

func onlyZeros(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), pageSize)
		if !allZero(p[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
