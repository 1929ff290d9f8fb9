package store

import (
	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/slots"
)

// tableCall is a call that lacks a slot.
type tableCall struct {
	call *commit.Call // nil: an expiry lacks the slot
	why  *commit.NoRoom
}

// LacksSlot makes a table grow for an expiry that needs a slot.
func (r *room) LacksSlot(why *commit.NoRoom) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forTables = append(r.forTables, tableCall{why: why})
	wake(r.tableWake)
}

// keepTables keeps free slots ready ahead of need, and makes room for the calls
// that lack one.
func (r *room) keepTables() {
	defer r.s.background.Done()
	for r.s.wait(r.tableWake) {
		if class := r.s.lowTable(); class >= 0 {
			// A full disk is noted, and any other failure stops writes.
			_ = r.growTable(class, r.s.Tables.Capacity(class))
		}
		r.serveTables()
	}
	r.serveTables()
}

func (r *room) serveTables() {
	for {
		r.mu.Lock()
		calls := r.forTables
		r.forTables = nil
		r.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		var errs [len(slots.Classes)]error
		for _, t := range calls {
			class := t.why.Class
			if errs[class] == nil {
				errs[class] = r.growTable(class, t.why.Capacity)
			}
			switch err, c := errs[class], t.call; {
			case c == nil:
				r.s.writer.Wake()
			case err == nil:
				r.again(c)
			case disk.IsFull(err) && c.Op.Frees() && !c.Reserve:
				c.Reserve = true
				r.again(c)
			default:
				r.refuse(c, err)
			}
		}
	}
}

// growTable makes room in the table of a class which had no free slot at that
// capacity. Room that a full disk has again is the log's first.
func (r *room) growTable(class int, capacity uint64) error {
	tables := r.s.Tables
	if tables.Capacity(class) > capacity {
		return nil
	}
	if r.s.Log.Last() {
		if err := r.prepare(); err != nil {
			return err
		}
	}
	err := tables.Grow(class)
	if disk.IsFull(err) {
		r.noteFull(err)
		r.s.compacting.Lock()
		defer r.s.compacting.Unlock()
		for disk.IsFull(err) && r.spend(r.s.Log.SegmentSize()/8) {
			err = tables.Grow(class)
		}
	}
	if err == nil && !r.s.Log.NeedsPrepare() {
		r.noteFull(nil)
	}
	return r.check(err)
}

// lowTable returns a class whose table has less than a quarter of an extent
// left, or -1.
func (s *Store) lowTable() int {
	for class, size := range slots.Classes {
		if s.Tables.Free(class) < uint64(s.o.Extent/size/4) {
			return class
		}
	}
	return -1
}
