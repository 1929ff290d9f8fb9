package kvlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/internal/disk"
	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// Values are the live values of a log: an index in memory, of 8 bytes a key, and the
// segments that it points into. The index does not have the keys: a look-up reads
// the records that may be the key's and compares.
//
// Only one goroutine, the writer, may call Apply, Load and Replay; any may call the
// rest. location.go explains how the index says where a record is.
type Values struct {
	log        *wal.Log
	codec      codec
	index      *hashindex.Index
	offsetBits int

	reads   atomic.Uint64
	damaged atomic.Uint64

	mu        sync.RWMutex    // guards what follows and the segments' figures; held for a moment, never during I/O
	byOrdinal []*segmentStats // by ordinal; nil: free
	byNumber  map[uint64]*segmentStats
	taken     int // ordinals in use
	last      int // the ordinal assigned last: ordinals are assigned in turn, so that an old location does not point into a new segment
}

// maxLocationBits is how many bits the location takes in an index entry.
var maxLocationBits = bits.Len64(hashindex.MaxLocation)

// ErrDamaged is returned when the value of a key cannot be read: its record fails
// its checksum, or the disk fails to read it. IsBad tells these apart.
var ErrDamaged = errors.New("the stored value is damaged")

// IsBad reports whether an ErrDamaged is permanent: every record that could not be
// used fails its checksum. Otherwise the next try may succeed.
func IsBad(err error) bool { return errors.Is(err, errValue) }

// NewValues returns the values of an open log. The index is empty until Load and Replay
// fill it.
func NewValues(l *wal.Log) *Values {
	return &Values{
		log:        l,
		codec:      newCodec(l.ID()),
		index:      hashindex.New(),
		offsetBits: chooseBits(l.SegmentSizes()),
		byNumber:   make(map[uint64]*segmentStats),
	}
}

// Salvage accepts a batch whose checksum is bad only because the data of some of its
// values is damaged. Everything else in it is good then, and each value is checked again
// when it is read.
func (v *Values) Salvage(recs wal.Records) bool {
	bad := false
	for r := range recs.All() {
		if r.Type != TypeValue {
			continue
		}
		val, end, err := v.codec.head(r.Body)
		if err != nil || len(r.Body)-end != val.Length {
			return false
		}
		bad = bad || SumValue(r.Body[end:]) != val.Sum
	}
	return bad
}

// Hash returns the hash of a key. It depends on the directory's ID, so that no
// client can choose keys that collide, and it is the same after a restart. acc and
// id have at most 255 bytes.
func (v *Values) Hash(acc, id string) uint64 { return hashKey(v.log.ID(), acc, id) }

func (v *Values) hash(acc, id []byte) uint64 { return hashKey(v.log.ID(), acc, id) }

func hashKey[T string | []byte](dir [16]byte, acc, id T) uint64 {
	var room [16 + 1 + 255 + 255]byte
	b := append(room[:0], dir[:]...)
	b = append(b, uint8(len(acc)))
	b = append(b, acc...)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// Found is the result of looking a key up.
type Found struct {
	OK      bool   // the key has a record, which may have expired
	Loc     uint64 // its location in the index
	Version uint64
	Expires int64 // as in Value
	Size    int   // bytes of its record in the log

	seen  [3]uint64 // the first locations that the index had for the hash
	count int       // of all of them
}

// Find looks a key up. It reads the heads of the records that may be the key's. The error
// is ErrDamaged if a record cannot be read and no other one is the key's, and one that
// disk.IsNoDescriptor recognises if the process has no descriptor left for reading.
func (v *Values) Find(acc, id string, hash uint64) (Found, error) {
	_, f, err := v.look(acc, id, hash, false, 0)
	return f, err
}

// StillValid reports whether an earlier Find result is current; hash is that of its
// key. It reads nothing from disk. It may return false though only another key changed.
func (v *Values) StillValid(f *Found, hash uint64) bool {
	var room [8]uint64
	now := v.index.Candidates(hash, room[:0])
	if f.OK {
		return slices.Contains(now, f.Loc)
	}
	if f.count > len(f.seen) {
		return false
	}
	for _, loc := range now {
		if !slices.Contains(f.seen[:f.count], loc) {
			return false
		}
	}
	return true
}

// Points reports whether the index has this location for a key with this hash.
func (v *Values) Points(hash, loc uint64) bool {
	var room [8]uint64
	return slices.Contains(v.index.Candidates(hash, room[:0]), loc)
}

// Get reads the value of a key and checks it. ok is false if the key has none. The value
// may have expired. A value of more than most bytes is returned without its Data, which
// is not read; Length has its size. Errors are as for Find.
func (v *Values) Get(acc, id string, hash uint64, most int) (val Value, ok bool, err error) {
	v.reads.Add(1)
	val, f, err := v.look(acc, id, hash, true, most)
	return val, f.OK, err
}

// maxLooks is how often a look-up is tried while it meets segments being freed or
// records being moved.
const maxLooks = 100

// look finds a key's record. With data set it also returns the value, as Get does.
func (v *Values) look(acc, id string, hash uint64, data bool, most int) (val Value, f Found, err error) {
	first := firsts.Get().(*[firstRead]byte)
	defer firsts.Put(first)
	var room [8]uint64
	for range maxLooks {
		f = Found{}
		var bad error
		seen := v.index.Candidates(hash, room[:0])
		for i, loc := range seen {
			if i < len(f.seen) {
				f.seen[i] = loc
			}
			f.count++
			r, err := v.read(loc, first[:])
			if err == nil && !r.head.is(acc, id) {
				continue
			}
			if err == nil && data {
				val, err = r.value(v.codec, most)
			}
			if err != nil {
				if bad == nil || !IsBad(err) {
					bad = err
				}
				continue
			}
			f.OK, f.Loc, f.Version, f.Expires, f.Size = true, loc, r.head.Version, r.head.Expires, wal.RecordSize(r.body)
			return val, f, nil
		}
		var again [8]uint64
		if slices.Equal(seen, v.index.Candidates(hash, again[:0])) {
			if disk.IsNoDescriptor(bad) {
				return Value{}, f, bad
			}
			if bad != nil {
				v.damaged.Add(1)
				err = fmt.Errorf("%w: %w", ErrDamaged, bad)
			}
			return Value{}, f, err
		}
	}
	return Value{}, f, fmt.Errorf("%w: %d attempts to read it failed", ErrDamaged, maxLooks)
}

// firstRead is how many bytes of a record are read at first. Most records are not
// longer, and no head is; see MaxType and MaxEncoding of package db.
const firstRead = 1 << 10

var firsts = sync.Pool{New: func() any { return new([firstRead]byte) }}

// reading is a value's record whose head was read.
type reading struct {
	seg  *wal.Segment
	off  int64  // of the body
	body int    // its length in bytes
	read []byte // the part of the body that was read
	head Value  // aliases read
}

func (r *reading) fail(err error) error {
	return fmt.Errorf("%s at offset %d: %w", r.seg.Path(), r.off-wal.RecordHeader, err)
}

// read reads the record at a location as far as buf has room, and decodes its head.
func (v *Values) read(loc uint64, buf []byte) (reading, error) {
	s, off, err := v.place(loc)
	if err != nil {
		return reading{}, err
	}
	r := reading{seg: s, off: off + wal.RecordHeader}
	buf = buf[:max(0, min(int64(len(buf)), s.Size()-off))]
	if n, err := s.ReadAt(buf, off); err != nil && (err != io.EOF || n < len(buf)) {
		return r, r.fail(err)
	}
	if len(buf) < wal.RecordHeader {
		return r, r.fail(errValue)
	}
	typ, body := wal.ParseRecordHeader(buf)
	if typ != TypeValue || body > s.Size()-r.off {
		return r, r.fail(errValue)
	}
	r.body = int(body)
	r.read = buf[wal.RecordHeader:][:min(r.body, len(buf)-wal.RecordHeader)]
	var end int
	if r.head, end, err = v.codec.head(r.read); err != nil {
		return r, r.fail(err)
	}
	if end+r.head.Length != r.body {
		return r, r.fail(errValue)
	}
	return r, nil
}

// value reads the rest and returns the whole value in newly allocated memory. For a value
// of more than most bytes it returns only the head.
func (r *reading) value(c codec, most int) (Value, error) {
	if r.head.Length > most {
		head := r.head
		head.Acc, head.ID, head.Type, head.Encoding = nil, nil, bytes.Clone(head.Type), bytes.Clone(head.Encoding)
		return head, nil
	}
	whole := make([]byte, r.body)
	n := copy(whole, r.read)
	if n < len(whole) {
		if _, err := r.seg.ReadAt(whole[n:], r.off+int64(n)); err != nil {
			return Value{}, r.fail(err)
		}
	}
	val, err := c.decodeValue(whole)
	if err != nil {
		return Value{}, r.fail(err)
	}
	return val, nil
}

func (v *Values) place(loc uint64) (*wal.Segment, int64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.at(loc)
	if h == nil {
		return nil, 0, os.ErrClosed
	}
	return h.seg, v.offset(h, loc), nil
}

// Check reads every value that the index points to, in the order of the log, and
// reports those that cannot be read or are not found by their key. It calls read now and
// then with the bytes read since the last call. It returns how many values there are.
func (v *Values) Check(report func(*disk.Damage), read func(bytes int64)) int {
	locs := make([]uint64, 0, v.index.Len())
	var entries []uint64
	for i := range v.index.Shards() {
		entries = v.index.AppendShard(i, entries[:0])
		for _, e := range entries {
			locs = append(locs, hashindex.Location(e))
		}
	}
	slices.Sort(locs)
	var first [firstRead]byte
	for i, loc := range locs {
		r, err := v.read(loc, first[:])
		read(int64(r.body))
		if err == nil && (i > 0 && locs[i-1] == loc || !v.Points(v.hash(r.head.Acc, r.head.ID), loc)) {
			err = r.fail(errors.New("the index points here for another key"))
		}
		if err == nil {
			_, err = r.value(v.codec, math.MaxInt)
		}
		if err == nil {
			continue
		}
		lost := "a value"
		if len(r.head.ID) > 0 {
			lost = fmt.Sprintf("the value %q of account %q", r.head.ID, r.head.Acc)
		}
		if r.seg == nil {
			report(&disk.Damage{File: "index", What: "it points to a missing segment: " + err.Error(), Lost: lost})
			continue
		}
		report(r.seg.Damage(r.off-wal.RecordHeader, errors.Unwrap(err).Error(), lost)) // what fail has wrapped
	}
	return len(locs)
}

// Decode decodes and checks the body of a value's record. The result aliases body.
func (v *Values) Decode(body []byte) (Value, error) { return v.codec.decodeValue(body) }
