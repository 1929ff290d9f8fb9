package kvlog

import "clouddragon/kvlog/wal"

// Step is one change of the values that a batch made durable.
type Step struct {
	Hash uint64
	// At is where the new record stands, counted from its batch; -1: there is
	// none, the key is gone.
	At      int
	Size    int // of the new record
	Expires int64
	// Old is what the key had before, if OK. With After it is the record of an
	// earlier step of the batch, whose index After is, less one.
	Old   Found
	After int
	// Tombstone is the size of a tombstone that the batch holds too; 0: none.
	Tombstone int

	loc uint64
}

// Put fills in a value record's body, of ValueSize bytes. sum is SumValue of data.
func (v *Values) Put(p []byte, acc, id, typ string, version uint64, expires int64, data []byte, sum uint32) {
	v.codec.putValue(p, acc, id, typ, version, expires, data, sum)
}

// Apply takes over what a durable batch changed; start is where it begins.
// Only the writer calls it, and recovery.
func (v *Values) Apply(start wal.Pos, steps []Step) {
	var here *holder
	for i := range steps {
		s := &steps[i]
		old := s.Old.Loc
		if s.After > 0 {
			old = steps[s.After-1].loc
		}
		if here == nil && (s.At >= 0 || s.Tombstone > 0) {
			v.mu.Lock()
			here = v.holder(start.Segment)
			v.mu.Unlock()
		}
		switch {
		case s.At < 0 && s.Old.OK:
			v.index.Delete(s.Hash, old)
		case s.At < 0:
		case s.Old.OK:
			s.loc = v.location(here, start.Offset+int64(s.At))
			v.index.Move(s.Hash, old, s.loc)
		default:
			s.loc = v.location(here, start.Offset+int64(s.At))
			v.index.Insert(s.Hash, s.loc)
		}
		v.account(here, s, old)
	}
}

// account keeps the bytes of the segments up to date.
func (v *Values) account(here *holder, s *Step, old uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.Old.OK {
		if h := v.holders[old>>v.offsetBits]; h != nil {
			h.drop(int64(s.Old.Size), s.Old.Expires)
		}
	}
	if s.At >= 0 {
		here.keep(int64(s.Size), s.Expires)
	}
	if s.Tombstone > 0 {
		here.total += int64(s.Tombstone)
		here.marks += int64(s.Tombstone)
	}
}

// Replay takes over a record of type TypeValue or TypeTombstone, from the log. What
// came earlier in the log must have been replayed before. An error is also that
// an older record of its key cannot be read now: it might be there again later.
func (v *Values) Replay(recs wal.Records, rec wal.Record) (version uint64, err error) {
	start := wal.Pos{Segment: recs.Segment}
	step := Step{At: -1}
	if rec.Type == TypeTombstone {
		m, err := DecodeTombstone(rec.Body)
		if err != nil {
			return 0, err
		}
		acc, id := string(m.Acc), string(m.ID)
		step.Hash = v.Hash(acc, id)
		step.Tombstone = wal.RecordSize(len(rec.Body))
		step.Old, err = v.Find(acc, id, step.Hash)
		if err != nil && !IsBad(err) {
			return 0, err
		}
		v.Apply(start, []Step{step})
		return 0, nil
	}
	val, _, err := v.codec.head(rec.Body)
	if err != nil {
		return 0, err
	}
	acc, id := string(val.Acc), string(val.ID)
	step.Hash = v.Hash(acc, id)
	step.At, step.Size, step.Expires = int(rec.Offset), wal.RecordSize(len(rec.Body)), val.Expires
	step.Old, err = v.Find(acc, id, step.Hash)
	if err != nil && !IsBad(err) {
		return 0, err
	}
	v.Apply(start, []Step{step})
	return val.Version, nil
}
