package kvlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/bits"
	"path"
	"slices"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// The index snapshot, the file "index", saves the index, so that a start reads only
// what the log holds after it. It begins with a head:
//
//	 0  magic     8  "cdindex\n"
//	 8  version   4  1
//	12  checksum  4  crc32c of the directory's ID and bytes 16 to length
//	16  length    4  bytes of the head
//	20  bits      4  of a location that are the offset in a segment, in units of 8 bytes; those above are the ordinal.
//	                 A larger segment has the next ordinals too
//	24  ID       16  of the data directory
//	40  position    in the log up to which it is complete: u64 segment, u64 offset, u64 batch, u32 checksum
//	68  shards    4
//	72  last      8  the ordinal that was assigned last
//	80  count     4  of segments that hold values
//	84  zero      4
//	88  segments    each: u64 number, u32 ordinal, u32 count of expiries, i64 bytes: live, of all records, of tombstones;
//	                then its expiries: i64 time, i64 bytes
//
// The entries of each shard of the index follow:
//
//	0  count     4
//	4  checksum  4  crc32c of the directory's ID, u64 batch, u32 shard, and the entries
//	8  entries   8 each, as hashindex has them
//
// It is written one shard after the other while the writer continues, so entries may
// be newer than the position. That does no harm: a start replays the log from the
// position on, and the last record of a key decides. Load drops entries that point past
// the position, since the replay restores them.
const (
	// SnapshotName is the name of the file in the data directory.
	SnapshotName = "index"

	// Part of the file format, never changed; sizes are in bytes.
	snapshotMagic   = "cdindex\n"
	snapshotVersion = 1
	snapshotHead    = 88 // without the segments
	snapshotSegment = 40 // a segment, without its expiries
	snapshotShard   = 8  // a shard, without its entries
)

// snapshotPiece is how much of a snapshot is written at a time, in bytes.
const snapshotPiece = 256 << 10

// Snapshot is a snapshot of the index that is about to be written.
type Snapshot struct {
	v    *Values
	head []byte
	seq  uint64
}

// Freeze begins a snapshot that is complete up to at, the end of a batch that was
// applied. Any goroutine may call it.
func (v *Values) Freeze(at wal.Pos) *Snapshot {
	v.mu.RLock()
	defer v.mu.RUnlock()
	le := binary.LittleEndian
	b := make([]byte, snapshotHead)
	copy(b, snapshotMagic)
	le.PutUint32(b[8:], snapshotVersion)
	le.PutUint32(b[20:], uint32(v.offsetBits))
	id := v.log.ID()
	copy(b[24:], id[:])
	le.PutUint64(b[40:], at.Segment)
	le.PutUint64(b[48:], uint64(at.Offset))
	le.PutUint64(b[56:], at.Seq)
	le.PutUint32(b[64:], at.Sum)
	le.PutUint32(b[68:], uint32(v.index.Shards()))
	le.PutUint64(b[72:], uint64(v.last))
	le.PutUint32(b[80:], uint32(len(v.byNumber)))
	for _, n := range slices.Sorted(maps.Keys(v.byNumber)) {
		h := v.byNumber[n]
		b = le.AppendUint64(b, n)
		b = le.AppendUint32(b, uint32(h.ordinal))
		b = le.AppendUint32(b, uint32(len(h.expiries)))
		for _, x := range []int64{h.live, h.total, h.tombstones} {
			b = le.AppendUint64(b, uint64(x))
		}
		for _, e := range h.expiries {
			b = le.AppendUint64(b, uint64(e.at))
			b = le.AppendUint64(b, uint64(e.size))
		}
	}
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[12:], crc32.Update(v.codec.seed, format.Castagnoli, b[16:]))
	return &Snapshot{v: v, head: b, seq: at.Seq}
}

// Write replaces the older snapshot in dir by this one, durable when it returns, and
// returns its size in bytes. After an error one of the two is there, either of them.
func (s *Snapshot) Write(fsys disk.FS, dir string) (size int64, err error) {
	name := path.Join(dir, SnapshotName)
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return 0, err
	}
	size, err = s.write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, fsys.Remove(tmp))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return 0, err
	}
	return size, fsys.SyncDir(dir)
}

// write writes it in pieces of about snapshotPiece bytes.
func (s *Snapshot) write(f disk.File) (size int64, err error) {
	le := binary.LittleEndian
	buf := s.head
	var entries []uint64
	for i := range s.v.index.Shards() {
		entries = s.v.index.AppendShard(i, entries[:0])
		at := len(buf)
		buf = append(buf, make([]byte, snapshotShard)...)
		for _, e := range entries {
			buf = le.AppendUint64(buf, e)
		}
		le.PutUint32(buf[at:], uint32(len(entries)))
		le.PutUint32(buf[at+4:], s.v.codec.shardSum(s.seq, i, buf[at+snapshotShard:]))
		if len(buf) >= snapshotPiece || i == s.v.index.Shards()-1 {
			if _, err := f.WriteAt(buf, size); err != nil {
				return 0, err
			}
			size += int64(len(buf))
			buf = buf[:0]
		}
	}
	return size, nil
}

func (c codec) shardSum(seq uint64, shard int, entries []byte) uint32 {
	var b [12]byte
	binary.LittleEndian.PutUint64(b[:], seq)
	binary.LittleEndian.PutUint32(b[8:], uint32(shard))
	return crc32.Update(crc32.Update(c.seed, format.Castagnoli, b[:]), format.Castagnoli, entries)
}

// Load fills the empty index of a log that was just opened from the snapshot in dir.
// It returns the position from which the log has to be replayed, and the size of the
// snapshot in bytes. An error says why the snapshot cannot be used, ErrSnapshot if
// it is damaged; the index is empty then.
func (v *Values) Load(fsys disk.FS, dir string) (from wal.Pos, size int64, err error) {
	f, err := fsys.Open(path.Join(dir, SnapshotName))
	if err != nil {
		return wal.Pos{}, 0, err
	}
	size, err = f.Size()
	if err == nil {
		r := &snapshotReader{v: v, file: f, size: size}
		from, err = r.load()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		v.clear()
		return wal.Pos{}, 0, err
	}
	return from, size, nil
}

func (v *Values) clear() {
	v.index = hashindex.New()
	v.offsetBits = chooseBits(v.log.SegmentSizes())
	v.byOrdinal, v.byNumber, v.taken, v.last = nil, make(map[uint64]*segmentStats), 0, 0
}

// ErrSnapshot is returned when a snapshot fails its checks or cannot be read.
var ErrSnapshot = errors.New("the index snapshot is damaged")

// snapshotReader reads a snapshot from front to back.
type snapshotReader struct {
	v    *Values
	file disk.File
	size int64 // of the file
	off  int64
	buf  []byte
	from wal.Pos
}

// next returns the next n bytes, valid until the next call.
func (r *snapshotReader) next(n int) ([]byte, error) {
	if int64(n) > r.size-r.off {
		return nil, fmt.Errorf("%w: read %d bytes at offset %d: it has %d", ErrSnapshot, n, r.off, r.size)
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	p := r.buf[:n]
	if got, err := r.file.ReadAt(p, r.off); got < n {
		return nil, fmt.Errorf("%w: read %d bytes at offset %d: got %d: %w", ErrSnapshot, n, r.off, got, err)
	}
	r.off += int64(n)
	return p, nil
}

func (r *snapshotReader) load() (wal.Pos, error) {
	shards, err := r.head()
	if err != nil {
		return wal.Pos{}, err
	}
	if err := r.v.continues(r.from); err != nil {
		return wal.Pos{}, err
	}
	var entries []uint64
	for i := range shards {
		if entries, err = r.shard(i, entries[:0]); err != nil {
			return wal.Pos{}, err
		}
		if err := r.v.index.LoadShard(i, entries); err != nil {
			return wal.Pos{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	if r.off != r.size {
		return wal.Pos{}, fmt.Errorf("%w: it has %d bytes, want %d", ErrSnapshot, r.size, r.off)
	}
	return r.from, nil
}

// head reads and checks the head, and returns the number of shards.
func (r *snapshotReader) head() (shards int, err error) {
	le, v, id := binary.LittleEndian, r.v, r.v.log.ID()
	b, err := r.next(snapshotHead)
	if err != nil {
		return 0, err
	}
	length := int64(le.Uint32(b[16:]))
	switch {
	case string(b[:8]) != snapshotMagic:
		return 0, fmt.Errorf("%w: it does not begin like an index snapshot", ErrSnapshot)
	case le.Uint32(b[8:]) != snapshotVersion:
		return 0, fmt.Errorf("%w: it has format version %d, this program reads version %d", ErrSnapshot, le.Uint32(b[8:]), snapshotVersion)
	case string(b[24:40]) != string(id[:]):
		return 0, fmt.Errorf("%w: it belongs to the data directory with ID %x, this one has %x", ErrSnapshot, b[24:40], id)
	case length < snapshotHead || length > r.size:
		return 0, fmt.Errorf("%w: its head has %d bytes, the file %d", ErrSnapshot, length, r.size)
	}
	r.off = 0
	if b, err = r.next(int(length)); err != nil {
		return 0, err
	}
	if got, want := crc32.Update(v.codec.seed, format.Castagnoli, b[16:]), le.Uint32(b[12:]); got != want {
		return 0, fmt.Errorf("%w: its head has checksum %08x, its bytes have %08x", ErrSnapshot, want, got)
	}
	r.from = wal.Pos{Segment: le.Uint64(b[40:]), Offset: int64(le.Uint64(b[48:])), Seq: le.Uint64(b[56:]), Sum: le.Uint32(b[64:])}
	offsetBits, shards := int(le.Uint32(b[20:])), int(le.Uint32(b[68:]))
	if shards != v.index.Shards() || offsetBits < bits.Len(wal.MinSegment/8)-1 || offsetBits > bits.Len(wal.MaxSegment/8) {
		return 0, fmt.Errorf("the index snapshot has %d shards and %d bits for a place, want %d and %d", shards, offsetBits, v.index.Shards(), v.offsetBits)
	}
	v.offsetBits = offsetBits
	v.last = int(le.Uint64(b[72:]))
	return shards, r.segments(b[snapshotHead:], int(le.Uint32(b[80:])))
}

// segments reads the segments of the head. It skips those that the log no longer has
// and those past the position.
func (r *snapshotReader) segments(b []byte, count int) error {
	le, v := binary.LittleEndian, r.v
	for range count {
		if len(b) < snapshotSegment {
			return fmt.Errorf("%w: its list of segments is cut off", ErrSnapshot)
		}
		h := &segmentStats{seg: v.log.Segment(le.Uint64(b)), ordinal: int(le.Uint32(b[8:]))}
		number, ends := le.Uint64(b), int(le.Uint32(b[12:]))
		h.live, h.total, h.tombstones = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
		b = b[snapshotSegment:]
		n := 1
		if h.seg != nil {
			n = v.span(h.seg.Size())
		}
		if ends > maxExpiries || len(b) < 16*ends || h.ordinal > v.maxOrdinals()-n {
			return fmt.Errorf("%w: segment %d has ordinal %d and %d expiries", ErrSnapshot, number, h.ordinal, ends)
		}
		for i := range ends {
			at := int64(le.Uint64(b[16*i:]))
			h.expiries = append(h.expiries, expiry{at: at, size: int64(le.Uint64(b[16*i+8:])), from: at})
		}
		b = b[16*ends:]
		if h.seg == nil || number > r.from.Segment {
			continue
		}
		if v.byNumber[number] != nil || slices.ContainsFunc(v.byOrdinal[min(h.ordinal, len(v.byOrdinal)):min(h.ordinal+n, len(v.byOrdinal))], func(o *segmentStats) bool { return o != nil }) {
			return fmt.Errorf("%w: segment %d, or its ordinal %d, is listed twice", ErrSnapshot, number, h.ordinal)
		}
		v.put(h)
	}
	if v.last < 0 || v.last >= v.maxOrdinals() || len(b) != 0 {
		return fmt.Errorf("%w: its last ordinal is %d, %d bytes follow", ErrSnapshot, v.last, len(b))
	}
	return nil
}

// shard appends the entries of a shard that do not point past the position.
func (r *snapshotReader) shard(i int, entries []uint64) ([]uint64, error) {
	le, v := binary.LittleEndian, r.v
	b, err := r.next(snapshotShard)
	if err != nil {
		return nil, err
	}
	count, want := int64(le.Uint32(b)), le.Uint32(b[4:])
	if count*8 > r.size-r.off {
		return nil, fmt.Errorf("%w: shard %d has %d entries, %d bytes are left", ErrSnapshot, i, count, r.size-r.off)
	}
	if b, err = r.next(int(count * 8)); err != nil {
		return nil, err
	}
	if got := v.codec.shardSum(r.from.Seq, i, b); got != want {
		return nil, fmt.Errorf("%w: shard %d has checksum %08x, its bytes have %08x", ErrSnapshot, i, want, got)
	}
	for ; len(b) > 0; b = b[8:] {
		e := le.Uint64(b)
		loc := hashindex.Location(e)
		h := v.at(loc)
		if h == nil {
			continue
		}
		if h.seg.Number() < r.from.Segment || v.offset(h, loc) < r.from.Offset {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// continues returns an error if the log does not continue at the position of a snapshot,
// as when one of the two was restored from an older copy. If the segment of the position
// was freed, the log continues with the next segment, to which everything that was still
// needed was moved.
func (v *Values) continues(at wal.Pos) error {
	durable := v.log.Checkpoint()
	s := v.log.Segment(at.Segment)
	switch order := cmp.Or(cmp.Compare(at.Segment, durable.Segment), cmp.Compare(at.Offset, durable.Offset)); {
	case order > 0:
		return fmt.Errorf("the index snapshot is newer than CHECKPOINT: it ends with batch %d, CHECKPOINT with %d", at.Seq, durable.Seq)
	case order < 0 && s == nil && at.Seq < durable.Seq:
		return nil
	case s == nil:
		return fmt.Errorf("the index snapshot ends with batch %d in segment %d, which is freed, CHECKPOINT with batch %d", at.Seq, at.Segment, durable.Seq)
	case order == 0 && at != durable:
		return fmt.Errorf("the index snapshot ends with batch %d with checksum %08x, CHECKPOINT with %d with %08x", at.Seq, at.Sum, durable.Seq, durable.Sum)
	case order == 0:
		return nil
	}
	if ok, err := v.log.Follows(at); err != nil || ok {
		return err
	}
	return fmt.Errorf("batch %d does not follow where the index snapshot ends, at offset %d of segment %d", at.Seq+1, at.Offset, at.Segment)
}
