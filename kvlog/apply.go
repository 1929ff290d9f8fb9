package kvlog

import "clouddragon/kvlog/wal"

// Step is one change of a key by a durable batch.
type Step struct {
	Hash uint64 // of the key
	// At is the offset of the key's new record within its batch, in bytes; -1 if
	// the key no longer has a value.
	At      int
	Size    int   // bytes of the new record
	Expires int64 // of the new record, as in Value
	// Old is the record that the key had before, if OK. If After is not 0, that
	// is the new record of an earlier step of the same batch, number After
	// counted from 1, and Old has only its size and expiry.
	Old   Found
	After int
	// Tombstone is the size in bytes of the key's tombstone in the batch; 0: none.
	Tombstone int

	loc uint64 // of the new record
}

// Put fills in a value's body, of ValueSize bytes. acc and id have 1 to 255 bytes; typ,
// the Content-Type, at most 255; encoding, the Content-Encoding, at most 64. expires is
// as in Value, sum is SumValue of data.
func (v *Values) Put(p []byte, acc, id, typ, encoding string, version uint64, expires int64, data []byte, sum uint32) {
	v.codec.putValue(p, acc, id, typ, encoding, version, expires, data, sum)
}

// Apply applies the steps of a durable batch, which begins at start, to the index. Only
// the writer and recovery call it.
func (v *Values) Apply(start wal.Pos, steps []Step) {
	var here *segmentStats
	for i := range steps {
		s := &steps[i]
		old := s.Old.Loc
		if s.After > 0 {
			old = steps[s.After-1].loc
		}
		if here == nil && (s.At >= 0 || s.Tombstone > 0) {
			v.mu.Lock()
			here = v.statsOf(start.Segment)
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

// account updates the figures of the segments that a step affects.
func (v *Values) account(here *segmentStats, s *Step, old uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.Old.OK {
		if h := v.at(old); h != nil {
			h.drop(int64(s.Old.Size), s.Old.Expires)
		}
	}
	if s.At >= 0 {
		here.keep(int64(s.Size), s.Expires)
	}
	if s.Tombstone > 0 {
		here.total += int64(s.Tombstone)
		here.tombstones += int64(s.Tombstone)
	}
}

// Replay applies one record of the log, a value or a tombstone, to the index. All earlier
// records that are not yet in the index must have been replayed. It returns the version
// of a value, 0 for a tombstone, and an error if the record is damaged or the disk cannot
// read an older record of the key.
func (v *Values) Replay(recs wal.Records, rec wal.Record) (version uint64, err error) {
	start := wal.Pos{Segment: recs.Segment}
	step := Step{At: -1}
	if rec.Type == TypeTombstone {
		stone, err := DecodeTombstone(rec.Body)
		if err != nil {
			return 0, err
		}
		acc, id := string(stone.Acc), string(stone.ID)
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
