package db

import (
	"slices"
	"sync/atomic"
	"time"

	"clouddragon/internal/disk"
)

// All that is decided because a disk is full. How far the log has got is told in
// kvlog/wal/reserve.go; here is who may still write, and who makes room:
//
//	                 no blocks for a reserve           the log enters its last segment
//	  ┌─────────┐  ─────────────────────────►  ┌──────┐  ───────────────────►  ┌──────┐
//	  │ roomy   │                              │ full │                        │ last │
//	  └─────────┘  ◄─────────────────────────  └──────┘  ◄───────────────────  └──────┘
//	                 the reserve is made                 a segment was freed
//
//	roomy   everything is written
//	full    what needs more than is left of the active segment asks for room, and
//	        gets 507 where there is none; frees go on (deletes, unlocks, moves)
//	last    the same, and a delete leaves the room that compaction needs to free
//	        a segment, as long as there is one that is worth it
//
// Whoever asks for room (makeRoom) first tries for blocks and lets a checkpoint
// free segments that nothing needs. Then it compacts one segment at a time, until
// there is room or none of them has enough garbage. A segment that was freed
// becomes the log's next one before anybody else gets a byte of it. In state last
// compaction also begins by itself, before the deletes have used the room for it.
//
// A refusal has tried all this, so that the next call works once there is room.
// Ahead of need it is tried every now and then only.

// starvedWait is how long the end of a hold that finds no room in the log waits
// for the next try, where nothing else is to be done.
const starvedWait = 50 * time.Millisecond

// room is what is known of a full disk.
type room struct {
	full  atomic.Bool  // the last try for room found the disk full
	tried atomic.Int64 // when that was: wall time in ns
	told  atomic.Int64 // when the log said so: wall time in ns
	keep  atomic.Int64 // in state last: bytes that the next compaction needs
	look  atomic.Int64 // in state last: bytes logged since compaction was woken
}

// worthwhile is the least gain for which a segment is compacted on a full disk,
// for an operation that needs so many bytes. It is more than the headers that the
// batches of moves have, or compaction would go on for ever.
func (d *DB) worthwhile(need int) int64 {
	least := max(d.segment/64, min(8<<10, d.segment/8))
	return max(least, min(int64(need), d.segment/8))
}

// needs is the room that an operation must find in the log, last in its last segment.
// What is held back must not be spent on a compaction that cannot be finished,
// and deletes leave it to one that can.
func (d *DB) needs(o *op, last bool) int {
	switch {
	case last && o.verb == verbMove:
		return o.move.rest
	case last && o.frees() && !o.desperate:
		return o.room() + int(d.room.keep.Load())
	}
	return o.room()
}

// roomFor makes the room that the writer did not find for an operation. The
// error is the answer to its caller, whatever it is.
func (d *DB) roomFor(o *op) error {
	log, class := o.err == errNeedLog, slices.Index(needSlot[:], o.err)
	if !log && class < 0 {
		return o.err
	}
	if !d.useFiles() {
		return ErrStopping
	}
	defer d.background.Done()
	var err error
	if log {
		err = d.makeRoom(o)
	} else {
		err = d.growTable(class, o.capacity)
	}
	if err != nil {
		return d.noRoom(err)
	}
	return nil
}

// noRoom is the answer where making room failed with an error.
func (d *DB) noRoom(err error) error {
	switch {
	case d.Err() != nil:
		return ErrStopped
	case disk.IsNoDescriptor(err):
		return ErrDescriptors
	}
	return ErrFull
}

// makeRoom makes room in the log for an operation. After nil the operation is
// tried again.
func (d *DB) makeRoom(o *op) error {
	freed := d.compactFreed.Load()
	err := d.growLog()
	if !disk.IsFull(err) {
		return err
	}
	if o.verb == verbMove {
		return err
	}
	d.compactMu.Lock()
	defer d.compactMu.Unlock()
	if d.compactFreed.Load() != freed {
		return nil // whoever had the lock before has made room
	}
	if d.spend(d.worthwhile(o.room())) {
		return nil
	}
	if o.frees() && !o.desperate {
		o.desperate = true
		return nil
	}
	return err
}

// growLog gives the log its next segment and its reserve. On a full disk a
// checkpoint may free segments first, or have done so in the meantime.
func (d *DB) growLog() error {
	d.growLogMu.Lock()
	defer d.growLogMu.Unlock()
	err := d.log.Prepare()
	if disk.IsFull(err) && d.freeable() {
		if err := d.checkpoint(); err != nil {
			return err
		}
		err = d.log.Prepare()
	}
	d.noteFull(err)
	return d.checkRoom(err)
}

// growTable makes room in the table of a class which had no free slot at that
// capacity. Of those who found it full at once, one grows it. Room that a full
// disk has again is the log's first.
func (d *DB) growTable(class int, capacity uint64) error {
	d.growMu[class].Lock()
	defer d.growMu[class].Unlock()
	if d.tables.Capacity(class) > capacity {
		return nil
	}
	if d.log.Last() {
		if err := d.growLog(); err != nil {
			return err
		}
	}
	err := d.tables.Grow(class)
	if disk.IsFull(err) {
		d.noteFull(err)
		d.compactMu.Lock()
		defer d.compactMu.Unlock()
		for disk.IsFull(err) && d.spend(d.segment/8) {
			err = d.tables.Grow(class)
		}
	}
	if err == nil && !d.log.NeedsPrepare() {
		d.noteFull(nil)
	}
	return d.checkRoom(err)
}

// checkRoom stops writes for an error that is neither a full disk nor a want of
// descriptors.
func (d *DB) checkRoom(err error) error {
	if err != nil && !disk.IsFull(err) && !disk.IsNoDescriptor(err) {
		d.fail(err)
	}
	return err
}

// againAfter is how long nothing is tried ahead of need on a disk that was full.
const againAfter = time.Second

// tellAfter is how often the log says that the disk is full, at most: compaction
// can make room many times, each of which is used up at once.
const tellAfter = time.Minute

// mayGrow says whether to try for room ahead of need: what a full disk refuses
// tries by itself.
func (d *DB) mayGrow() bool {
	return !d.room.full.Load() || time.Since(time.Unix(0, d.room.tried.Load())) >= againAfter
}

// noteFull notes whether the disk is full, and says so.
func (d *DB) noteFull(err error) {
	if disk.IsNoDescriptor(err) {
		d.logger.Warn("no file descriptor left: the log cannot grow, and will be tried again", "err", err)
	}
	full := disk.IsFull(err) && d.Err() == nil
	d.room.tried.Store(time.Now().UnixNano())
	was := d.room.full.Swap(full)
	if full && !was {
		wake(d.compactWake)
		if now := time.Now(); now.Sub(time.Unix(0, d.room.told.Load())) >= tellAfter {
			d.room.told.Store(now.UnixNano())
			d.logger.Warn("disk full: the log or a table cannot grow, writes that need more room will be refused", "err", err)
		}
	}
}

// noteLast wakes compaction in the last segment of a full disk, every now and
// then, after a batch of so many bytes.
func (d *DB) noteLast(bytes int) {
	if !d.room.full.Load() || !d.log.Last() {
		d.room.look.Store(d.segment)
	} else if d.room.look.Add(int64(bytes)) >= d.segment/64 {
		d.room.look.Store(0)
		wake(d.compactWake)
	}
}

// spend compacts the segment that gives most room on a full disk, at least so
// many bytes, into what is held back, and says whether there was one. It wants
// compactMu held.
func (d *DB) spend(least int64) bool {
	d.stateMu.Lock()
	sealed := d.state.Log.Segment > d.ckptSegment.Load()
	d.stateMu.Unlock()
	// What lies before the last checkpoint can be compacted.
	if sealed && d.checkpoint() != nil {
		return false
	}
	victim, ok, err := d.values.Spendable(d.ckptSegment.Load(), d.clock.now(), least)
	if err != nil {
		d.logger.Error("the segments cannot be compared for compaction", "err", err)
		return false
	}
	d.room.keep.Store(0)
	if !ok {
		return false
	}
	moved := int(max(victim.Live, 0))
	d.room.keep.Store(moveSize(moved))
	return d.compactSegment(victim.Segment, int(moveSize(moved)))
}

// moveSize is an upper bound of what so many bytes of records take in the log,
// with the headers of the batches that move them.
func moveSize(live int) int64 {
	const header = 256 // of a batch, and what belongs to it
	if live == 0 {
		return 0
	}
	return int64(live + header*(2+2*live/moveChunk))
}
