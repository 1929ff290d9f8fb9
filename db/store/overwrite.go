package store

import (
	"errors"

	"clouddragon/db/commit"
	"clouddragon/slots"
)

// On a file system that copies on write, overwriting needs room: on XFS while a copy of the
// data directory shares its blocks, on btrfs below a snapshot, or always if the directory
// has copy-on-write. On a full disk
//
//	a batch of the log    is undone, and its calls are tried again with room that is
//	                      made, or refused
//	a page of a table     is kept in memory, and tried again at each checkpoint
//	CHECKPOINT            is put off: the log has everything
//
// Room is made by a checkpoint, which frees segments that nothing needs, and out of
// the reserve of the log. A refusal of a delete has tried this twice.

// Unwritten hands the calls of a batch that found the disk full to the keeper of the log.
// After a second failure only calls that free room are tried once more, without the others.
func (r *room) Unwritten(calls []*commit.Call, err error) {
	r.noteFull(err)
	r.mu.Lock()
	var refused []*commit.Call
	for _, c := range calls {
		if compacts(c) || c.Unwritten > 2 || c.Unwritten == 2 && !c.Op.Frees() {
			refused = append(refused, c)
		} else {
			r.forDisk = append(r.forDisk, c)
		}
	}
	r.mu.Unlock()
	wake(r.logWake)
	for _, c := range refused {
		answer(c, commit.ErrFull)
	}
}

// overwrites reports whether a batch waits for room on the disk.
func (r *room) overwrites() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.forDisk) > 0
}

// serveOverwrites makes room on the disk for batches that found none, and submits their calls
// again, whether there is room or not.
func (r *room) serveOverwrites() {
	r.mu.Lock()
	calls := r.forDisk
	r.forDisk = nil
	r.mu.Unlock()
	if len(calls) == 0 {
		return
	}
	r.giveRoom()
	for _, c := range calls {
		r.again(c)
	}
}

// giveRoom gives the disk the blocks that the log can spare.
func (r *room) giveRoom() {
	r.s.growing.Lock()
	defer r.s.growing.Unlock()
	if r.s.freeable() {
		// A full disk puts it off, and any other failure stops writes.
		_ = r.s.Checkpoint()
	}
	if r.check(r.s.Log.GiveReserve()) == nil {
		r.s.Tables.Retry()
	}
}

// errNoRoom is returned when there is no room to write CHECKPOINT.
var errNoRoom = errors.New("no room on the disk for the checkpoint")

// isPutOff reports whether err only means that a checkpoint has to wait for room on the disk.
// A sync that finds the disk full means a failed disk.
func isPutOff(err error) bool { return errors.Is(err, errNoRoom) || errors.Is(err, slots.ErrNoRoom) }
