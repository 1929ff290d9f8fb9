package wal

import (
	"fmt"

	"clouddragon/internal/disk"
)

// A segment has its blocks before a batch is written to it, and still the write can
// find the disk full: a file system that copies on write takes new blocks where a
// copy or a snapshot shares the old ones, and btrfs can do so anywhere.
//
// Such a batch is refused, so it must not come back, and the next batch goes to the
// same place. A write that found no room can have put the first bytes of the batch
// there. They are overwritten with zeros, and the zeros are synced, before the
// refusal. If the power is cut
//
//	before the sync     the call has no answer yet: the batch may be there or not
//	after it            nothing of the batch is there
//
// The zeros can find no room either. What was not written of the batch holds zeros,
// so if the batch has anything else there, its checksum is wrong, with any part of
// the rest on the disk: recovery calls it a torn tail. Then the batch is refused, and
// the zeros are tried again before the next one. They cannot be left out for good: the
// next batch may end with the same bytes as this one, and if the power is cut while
// it is written, the old beginning and the new end make the refused batch whole.
//
// Only if all that is missing of the batch is zeros, so that it is whole, and the
// zeros over it find no room, the outcome is unknown and the log has failed.

// takeBack takes back the first n bytes of a batch that found no room, and returns
// ErrFull, or an error that is final.
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

// clearLeft overwrites what takeBack could not.
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
