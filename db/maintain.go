package db

import (
	"slices"
	"time"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// wakeMaintenance tells the background goroutines what the last commit left
// them to do. It never waits.
func (d *DB) wakeMaintenance() {
	if (d.log.NeedsPrepare() || d.lowTable() >= 0) && d.mayGrow() {
		wake(d.growWake)
	}
	if d.log.Stats().Appended-d.checkpointed.Load() >= uint64(d.checkpointEvery) {
		wake(d.ckptWake)
	}
}

// lowTable returns a class whose table has less than a quarter of an extent
// left, or -1.
func (d *DB) lowTable() int {
	for class, size := range slots.Classes {
		if d.tables.Free(class) < uint64(d.extent/size/4) {
			return class
		}
	}
	return -1
}

// grow keeps a segment and free slots ready ahead of need. It owns nothing: the
// packages below lock for themselves.
func (d *DB) grow() {
	defer d.background.Done()
	for d.waitFor(d.growWake) {
		if d.log.NeedsPrepare() && d.growLog() == nil {
			d.queue.signal() // for the standby, which may wait for this
		}
		if class := d.lowTable(); class >= 0 {
			// A full disk is noted, and any other failure stops writes.
			_ = d.growTable(class, d.tables.Capacity(class))
		}
	}
}

// checkpoints runs a checkpoint whenever enough was logged since the last.
func (d *DB) checkpoints() {
	defer d.background.Done()
	for d.waitFor(d.ckptWake) {
		// A failure has stopped writes and was logged.
		if d.checkpoint() != nil {
			return
		}
		wake(d.compactWake)
	}
}

// checkpoint makes the tables durable up to what is applied now, says so in
// CHECKPOINT, and frees the segments that nothing needs any more. Commits go on meanwhile.
func (d *DB) checkpoint() error { return d.checkpointAs(false) }

// checkpointAs also saves the index where that is due: always if it is the last.
func (d *DB) checkpointAs(last bool) error {
	d.ckptMu.Lock()
	defer d.ckptMu.Unlock()
	if err := d.Err(); err != nil {
		return err
	}
	began := time.Now()
	appended := d.log.Stats().Appended
	d.stateMu.Lock()
	c := d.state
	d.stateMu.Unlock()
	var snapshot *kvlog.Snapshot
	// On a disk that is all but full the next segment comes first.
	if d.snapshot.dueFor(c.Log, appended, d.segment, last) && (last || !d.log.NeedsPrepare()) {
		snapshot = d.values.Freeze(c.Log)
	}
	c.Number++
	c.Moment = d.clock.read()
	c.Sizes, c.Used = d.tables.Sizes(), d.tables.Used()
	err := d.tables.Sync()
	if err == nil {
		c.Segments = needed(d.log, d.values, c.Log)
		err = d.ckpt.write(&c)
	}
	if err == nil {
		d.stateMu.Lock()
		d.state.Number = c.Number
		d.stateMu.Unlock()
		d.ckptSegment.Store(c.Log.Segment)
		err = d.log.Free(c.Log.Segment, func(n uint64) bool { return slices.Contains(c.Segments, n) })
	}
	if err != nil {
		d.fail(err)
		return err
	}
	// Behind CHECKPOINT, as it must not be newer.
	if snapshot != nil {
		d.saveIndex(snapshot, c.Log, appended)
	}
	d.checkpointed.Store(appended)
	d.ckptCount.Add(1)
	d.ckptTook.Store(int64(time.Since(began)))
	d.ckptAt.Store(time.Now().UnixNano())
	return nil
}

// needed returns the segments that a checkpoint at a place in the log needs:
// the one it lies in, and those before it that hold values.
func needed(l *wal.Log, v *kvlog.Values, at wal.Pos) []uint64 {
	held := v.Segments()
	return slices.DeleteFunc(l.Segments(), func(n uint64) bool {
		return n > at.Segment || n < at.Segment && !held[n]
	})
}

// freeable says whether a checkpoint would free a segment now.
func (d *DB) freeable() bool {
	d.stateMu.Lock()
	at := d.state.Log
	d.stateMu.Unlock()
	kept := needed(d.log, d.values, at)
	return slices.ContainsFunc(d.log.Segments(), func(n uint64) bool {
		return n < at.Segment && !slices.Contains(kept, n)
	})
}

// waitFor waits for a wake-up; false means that the database closes.
func (d *DB) waitFor(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-d.closing:
		return false
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
