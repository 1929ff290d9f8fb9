package db

import (
	"errors"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/slots"
)

// Compaction runs beside the traffic; kvlog/compact.go tells how. What it moves
// goes through the queue like any other operation, a chunk at a time, so that a
// caller waits at most for one chunk more.
const (
	moveChunk = 64 << 10 // bytes of records in one operation, or one record if that is larger
	// compactSlack is how many segments the log may have beyond
	// Options.CompactRatio times what is live.
	compactSlack = 2
	// compactEvery is how often it is looked for values whose time is over,
	// where no checkpoint does so.
	compactEvery = time.Minute
)

// moveOp is what an operation of compaction has besides the op.
type moveOp struct {
	moves []kvlog.Move
	size  int // bytes of their records
	rest  int // about how many bytes are to be moved until the segment can go, these included
	moved int // the answer: bytes appended
}

// CompactionStats count since Open.
type CompactionStats struct {
	Runs       uint64 // segments that were read to be compacted
	MovedBytes uint64 // of the records appended anew
	Freed      uint64 // segments released
}

// compactions compacts the log when it is woken, and every now and then.
func (d *DB) compactions() {
	defer d.background.Done()
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	for {
		select {
		case <-d.compactWake:
		case <-tick.C:
		case <-d.closing:
			return
		}
		d.compact()
	}
}

// compact compacts segments until the log is within its bounds, and on a full
// disk until it can go on or nothing is worth it.
func (d *DB) compact() {
	d.compactMu.Lock()
	defer d.compactMu.Unlock()
	// Each at most once: the figures that say there is an excess are not exact.
	for range d.log.Stats().Segments {
		switch {
		case d.room.full.Load() && d.log.NeedsPrepare():
			if !d.spend(d.worthwhile(0)) {
				return
			}
		case d.values.Excess(d.ckptSegment.Load(), d.compactRatio, d.clock.now()) <= compactSlack*d.segment:
			return
		default:
			if !d.compactOne() {
				return
			}
		}
	}
}

// compactOne compacts a segment and says whether it is worth going on. It wants
// compactMu held.
func (d *DB) compactOne() bool {
	victim, ok := d.values.Victim(d.ckptSegment.Load(), d.clock.now())
	return ok && d.compactSegment(victim.Segment, int(max(victim.Live, 0)))
}

// compactSegment compacts a segment that lies before the last checkpoint. rest
// is about how many bytes have to be moved.
func (d *DB) compactSegment(number uint64, rest int) bool {
	submit := func(moves []kvlog.Move) error {
		select {
		case <-d.closing:
			return ErrStopping
		default:
		}
		moved, err := d.move(moves, rest)
		rest = max(rest-moved, 0)
		return err
	}
	err := submit(nil) // is there room at all?
	if err == nil {
		d.compactRuns.Add(1)
		err = d.values.Survey(number, int(min(moveChunk, d.segment/8)), submit, func(err error) {
			d.logger.Error("compaction met a damaged record: its segment will be kept", "segment", number, "err", err)
		})
	}
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrStopping), errors.Is(err, ErrStopped), errors.Is(err, ErrUnknown):
		return false
	case err != nil:
		d.logger.Error("compaction of a segment failed", "segment", number, "err", err)
		return false
	}
	if err := d.values.Release(number); err != nil {
		d.logger.Error("a compacted segment cannot be freed", "segment", number, "err", err)
		return true
	}
	d.compactFreed.Add(1)
	if d.checkpoint() != nil {
		return false
	}
	// Nobody else gets what was freed before the log has what it needs.
	if err := d.growLog(); err != nil && !disk.IsFull(err) {
		return false
	}
	return true
}

// move submits what is to be moved and returns how many bytes that took.
func (d *DB) move(moves []kvlog.Move, rest int) (moved int, err error) {
	o := ops.Get().(*op)
	defer o.free()
	m := moveOp{moves: moves}
	for i := range moves {
		m.size += moves[i].Size
	}
	m.rest = max(rest, m.size)
	o.verb, o.move = verbMove, &m
	if err := d.do(o); err != nil {
		return 0, err
	}
	d.compactMoved.Add(uint64(m.moved))
	return m.moved, nil
}

func (d *DB) decideMove(o *op) {
	before := d.batch.records.Len()
	for i := range o.move.moves {
		m := &o.move.moves[i]
		if m.Type == kvlog.TypeTombstone {
			d.moveMark(o, m)
		} else {
			d.moveValue(m)
		}
		if o.err != nil {
			break // the segment stays, whatever became of the rest
		}
	}
	o.move.moved = d.batch.records.Len() - before
}

// moveValue moves a value that is still its key's, or ends it if its time is over.
func (d *DB) moveValue(m *kvlog.Move) {
	p := d.batch
	key := slots.Key{Acc: m.Acc, ID: m.ID}
	c := p.value(key, m.Hash)
	if c == nil {
		if !d.values.Points(m.Hash, m.Loc) {
			return
		}
		c = p.addValue(key, m.Hash, kvlog.Found{OK: true, Loc: m.Loc, Version: m.Version, Expires: m.Expires, Size: m.Size})
	}
	if !c.found.OK || c.after != 0 || c.found.Loc != m.Loc {
		return
	}
	if !c.live(d.now) {
		p.dated = true
		// No older value of it lies behind this segment.
		d.endValue(c, m.From, d.values.Needed(m.From, m.From))
		return
	}
	at := p.records.Len()
	p.records.AddBytes(kvlog.TypeValue, m.Body)
	p.steps = append(p.steps, kvlog.Step{Hash: m.Hash, At: at, Size: m.Size, Expires: m.Expires, Old: c.found})
	c.after = len(p.steps)
}

// moveMark writes a mark anew, unless its key has a value: that does the same.
func (d *DB) moveMark(o *op, m *kvlog.Move) {
	p := d.batch
	key := slots.Key{Acc: m.Acc, ID: m.ID}
	found := m.Found
	if c := p.value(key, m.Hash); c != nil {
		found = c.found
	} else if !d.values.StillValid(&found, m.Hash) {
		if found, o.err = d.values.Find(m.Acc, m.ID, m.Hash); o.err != nil {
			return
		}
	}
	if !found.OK {
		p.steps = append(p.steps, kvlog.Step{Hash: m.Hash, At: -1, Tombstone: p.mark(key, m.Origin)})
	}
}
