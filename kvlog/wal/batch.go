package wal

import (
	"encoding/binary"
	"hash/crc32"

	"clouddragon/internal/format"
)

// Part of the file format, never changed.
const (
	batchMagic  = "\xcdLOG"
	batchHeader = 48 // bytes
)

// codec encodes and checks the batches of one data directory.
type codec struct {
	seed uint32 // the checksum of the directory's ID, with which every other begins
}

func newCodec(id [16]byte) codec {
	return codec{seed: crc32.Checksum(id[:], format.Castagnoli)}
}

// header is a batch's header, decoded.
type header struct {
	sum, length, count, prev uint32
	seq, segment, offset     uint64
}

// end returns the position at the end of the batch.
func (h header) end() Pos {
	return Pos{Segment: h.segment, Offset: int64(h.offset) + int64(h.length), Seq: h.seq, Sum: h.sum}
}

// is reports whether the batch was written to this place.
func (h header) isAt(segment uint64, offset int64) bool {
	return h.segment == segment && h.offset == uint64(offset)
}

// putHeader fills in the header of the batch p, which goes to pos, and returns its
// sum. A batch is what one write and one sync make durable:
//
//	 0  magic     4  cd 'L' 'O' 'G'
//	 4  sum       4  checksum of the directory's ID and bytes 8 to length
//	 8  head      4  checksum of the directory's ID and bytes 12 to 48
//	12  length    4  bytes of the batch, this header included; a multiple of 8
//	16  count     4  records, at least 1
//	20  prev      4  sum of the batch before; 0 in the very first
//	24  seq       8  1, 2, 3…, over all segments
//	32  segment   8  number of the segment that it is in
//	40  offset    8  and where in it, in bytes
//	48  records
func (c codec) putHeader(p []byte, count uint32, pos Pos) uint32 {
	le := binary.LittleEndian
	copy(p, batchMagic)
	le.PutUint32(p[12:], uint32(len(p)))
	le.PutUint32(p[16:], count)
	le.PutUint32(p[20:], pos.Sum)
	le.PutUint64(p[24:], pos.Seq+1)
	le.PutUint64(p[32:], pos.Segment)
	le.PutUint64(p[40:], uint64(pos.Offset))
	le.PutUint32(p[8:], crc32.Update(c.seed, format.Castagnoli, p[12:batchHeader]))
	sum := c.sum(p)
	le.PutUint32(p[4:], sum)
	return sum
}

// sum returns the checksum that belongs in the header of the batch p.
func (c codec) sum(p []byte) uint32 {
	return crc32.Update(c.seed, format.Castagnoli, p[8:])
}

// header decodes a batch header from p, which has at least 48 bytes. ok is whether
// the header's own checksum is good. The records may still be bad, and the header may
// be in the wrong place.
func (c codec) header(p []byte) (h header, ok bool) {
	if string(p[:4]) != batchMagic {
		return header{}, false
	}
	le := binary.LittleEndian
	if le.Uint32(p[8:]) != crc32.Update(c.seed, format.Castagnoli, p[12:batchHeader]) {
		return header{}, false
	}
	return header{
		sum:     le.Uint32(p[4:]),
		length:  le.Uint32(p[12:]),
		count:   le.Uint32(p[16:]),
		prev:    le.Uint32(p[20:]),
		seq:     le.Uint64(p[24:]),
		segment: le.Uint64(p[32:]),
		offset:  le.Uint64(p[40:]),
	}, true
}
