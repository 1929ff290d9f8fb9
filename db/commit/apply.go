package commit

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Types of records in the log, besides those of kvlog; part of the file format,
// never changed.
//
//	TypeSlot    u64 slot, then the slot's new image
//	TypeTokens  u64 limit: every token handed out before the next such record is below it
//	TypeMoment  the moment at which the batch was decided. Alone in its batch it is
//	            a durability mark: the batch before it was durable
const (
	TypeSlot   uint8 = 1
	TypeTokens uint8 = 2
	TypeMoment uint8 = 3
)

var le = binary.LittleEndian

// The sizes of some records in the log, in bytes.
const (
	tokensRecord = 8 + 8
	momentRecord = 8 + MomentSize
)

// SlotChange is the most that one changed thing adds to a batch, in bytes: its new image in
// another slot, the image of the slot that it frees, and a new block of tokens.
const SlotChange = 2*SlotRecord + tokensRecord

// SlotRecord is the most that one image of a slot takes in a batch, in bytes.
const SlotRecord = 8 + 8 + 512

// slotRecordSize is the size of the record of a slot in the log, in bytes.
func slotRecordSize(r slots.Ref) int { return wal.RecordSize(8 + r.Size()) }

// State is what the log's records change: the slot tables, the index of the
// values, and the limits of tokens and versions. The writer, recovery and a follower share
// one Apply.
type State struct {
	Tables  *slots.Tables
	Values  *kvlog.Values
	Tokens  uint64 // every token handed out is below
	Version uint64 // the newest version of a value
	Moment  Moment // the latest in the log

	// Images, if not nil, collects the last image of each slot instead of storing it in the
	// tables. Recovery stores them once the whole log is found to be good.
	Images map[slots.Ref][]byte
	// Seen, if not nil, is called with the name of everything that a record stores; the
	// kind of a value is 0.
	Seen func(kind uint8, acc, id string)

	images []slots.Image
}

// Apply applies the records of one durable batch. steps are the changes of the values, as the
// writer knows them. If nil, Apply derives them from the records, which the index must not
// have seen before. An error means that no server of this version can have written the batch,
// or that the tables could not be written. Either way the state must not be used any more.
func (s *State) Apply(recs wal.Records, steps []kvlog.Step) error {
	s.images = s.images[:0]
	for rec := range recs.All() {
		body := rec.Body
		switch {
		case rec.Type == TypeSlot && len(body) > 8:
			if err := s.slot(slots.Ref(le.Uint64(body)), body[8:]); err != nil {
				return err
			}
		case rec.Type == TypeTokens && len(body) == 8:
			s.Tokens = max(s.Tokens, le.Uint64(body))
		case rec.Type == TypeMoment && len(body) == MomentSize:
			s.Moment = s.Moment.Later(GetMoment(body))
		case rec.Type == kvlog.TypeValue || rec.Type == kvlog.TypeTombstone:
			if steps == nil {
				if err := s.value(recs, rec); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("a record of unknown type %d with %d bytes: was it written by a newer version?", rec.Type, len(body))
		}
	}
	s.Tables.Apply(s.images)
	if steps != nil {
		s.Values.Apply(recs.Start(), steps)
	}
	return s.Tables.Err()
}

// ApplyValues applies only the values of a batch, for tables that already hold the rest.
func (s *State) ApplyValues(recs wal.Records) error {
	for rec := range recs.All() {
		if rec.Type == kvlog.TypeValue || rec.Type == kvlog.TypeTombstone {
			if err := s.value(recs, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *State) slot(ref slots.Ref, image []byte) error {
	if s.Images == nil {
		s.images = append(s.images, slots.Image{Ref: ref, Bytes: image})
		return nil
	}
	if len(image) != ref.Size() {
		return fmt.Errorf("an image of %d bytes for slot %d of %s", len(image), ref.Number(), slots.FileName(ref.Class()))
	}
	slot, err := s.Tables.Decode(ref, image)
	if err != nil {
		return fmt.Errorf("image of slot %d of %s: %w", ref.Number(), slots.FileName(ref.Class()), err)
	}
	if s.Seen != nil && !slot.Free {
		k := slot.Key()
		s.Seen(k.Kind, k.Acc, k.ID)
	}
	s.Images[ref] = bytes.Clone(image)
	return nil
}

func (s *State) value(recs wal.Records, rec wal.Record) error {
	version, err := s.Values.Replay(recs, rec)
	if err != nil {
		return fmt.Errorf("segment %d at offset %d: %w", recs.Segment, rec.Offset, err)
	}
	s.Version = max(s.Version, version)
	if s.Seen != nil && rec.Type == kvlog.TypeValue {
		acc, id := kvlog.NameOf(rec.Body)
		s.Seen(0, acc, id)
	}
	return nil
}
