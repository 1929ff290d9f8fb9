package wal

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// RecordHeader is the size of a record's header in bytes. Part of the file format,
// never changed.
const RecordHeader = recordHeader

// Part of the file format, never changed.
const (
	recordHeader = 8
	typeSeal     = 255
	sealBody     = 8
	sealSize     = batchHeader + recordHeader + sealBody // of the batch that holds a seal
)

// ParseRecordHeader returns the type of a record and the bytes of its body. p has
// at least RecordHeader bytes. A record header has no checksum: do not trust one that is
// not part of a checked batch.
func ParseRecordHeader(p []byte) (typ uint8, body int64) {
	return p[4], int64(binary.LittleEndian.Uint32(p))
}

// A batch drops a buffer larger than keepBuffer, in bytes, after keepBatches batches in a
// row that needed less. It keeps the buffer until then because allocating a new one takes
// as much time as writing a large value.
const (
	keepBuffer  = 1 << 20
	keepBatches = 64
)

// Batch collects the records of one Append. The zero Batch is empty and ready for
// use. One goroutine at a time may use it.
type Batch struct {
	buf   []byte // the batch as it will be written; its header is filled in by Append
	count uint32
	spare int  // batches in a row that did not need a large buffer
	first bool // see BeginSegment
}

// Reset empties the batch, so that it can be filled again.
func (b *Batch) Reset() {
	if b.spare++; len(b.buf) > keepBuffer {
		b.spare = 0
	}
	if cap(b.buf) > keepBuffer && b.spare > keepBatches {
		b.buf = nil
	}
	b.buf, b.count, b.first = b.buf[:0], 0, false
}

// BeginSegment makes the batch the first one of the next segment, if there is one with
// room for it. After that the segment that was active can be compacted though it is not full.
func (b *Batch) BeginSegment() { b.first = true }

// Add adds a record of that type, 1 to 254, with a body of n bytes, 0 to MaxSegment. It
// returns the body, all zeros, which is valid until the next Add. It panics if the type or
// the size is out of range.
func (b *Batch) Add(typ uint8, n int) []byte {
	body := b.AddDirty(typ, n)
	clear(body)
	return body
}

// AddDirty is like Add, but the body has arbitrary contents: the caller must overwrite all
// of it.
func (b *Batch) AddDirty(typ uint8, n int) []byte {
	if typ == 0 || typ == typeSeal || n < 0 || n > MaxSegment {
		panic(fmt.Sprintf("wal: record of type %d with %d bytes; types are 1 to 254, sizes 0 to %d", typ, n, MaxSegment))
	}
	return b.add(typ, n)
}

// AddBytes adds a record with a copy of body. Its limits are those of Add.
func (b *Batch) AddBytes(typ uint8, body []byte) {
	copy(b.AddDirty(typ, len(body)), body)
}

// add adds a record and returns its body, not cleared. A record is:
//
//	0  length  4  bytes of the body
//	4  type    1  1 to 254 belong to the caller, 255 is the seal
//	5  zeros   3
//	8  body, padded with zeros to a multiple of 8
//
// The last batch of a segment holds one record, the seal. Its body is the number of
// the segment in which the log continues (8 bytes), always this one's plus one.
// Append keeps room for it at the end of each segment.
func (b *Batch) add(typ uint8, n int) []byte {
	at := b.Len()
	end := at + recordHeader + padded(n)
	if end > cap(b.buf) {
		grown := make([]byte, max(end, cap(b.buf)+cap(b.buf)/2, 4096))
		copy(grown, b.buf)
		b.buf = grown
	}
	b.buf = b.buf[:end]
	clear(b.buf[at : at+recordHeader])
	clear(b.buf[at+recordHeader+n:])
	binary.LittleEndian.PutUint32(b.buf[at:], uint32(n))
	b.buf[at+4] = typ
	b.count++
	body := at + recordHeader
	return b.buf[body : body+n : body+n]
}

// Len returns how many bytes the batch takes in the log, including its header. This is
// also the offset in the batch at which the next record begins.
func (b *Batch) Len() int { return max(len(b.buf), batchHeader) }

// Records returns the number of records in the batch.
func (b *Batch) Records() int { return int(b.count) }

// RecordSize returns how many bytes a record with a body of n bytes takes in a batch,
// including its header and padding.
func RecordSize(n int) int { return recordHeader + padded(n) }

func padded(n int) int { return (n + 7) &^ 7 }

// Record is one record of the log.
type Record struct {
	Type   uint8
	Offset int64  // of the record's header in the segment
	Body   []byte // valid until the next batch is read
}

// Records are the records of one batch that has passed its checks.
type Records struct {
	// Segment is the number of their segment.
	Segment uint64

	offset int64 // of bytes in the segment
	bytes  []byte
	count  int
}

// Len returns the number of records.
func (r Records) Len() int { return r.count }

// All iterates over the records in the order in which they were added.
func (r Records) All() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for at := 0; at < len(r.bytes); {
			n := int(binary.LittleEndian.Uint32(r.bytes[at:]))
			body := at + recordHeader
			if !yield(Record{Type: r.bytes[at+4], Offset: r.offset + int64(at), Body: r.bytes[body : body+n : body+n]}) {
				return
			}
			at = body + padded(n)
		}
	}
}

// checkRecords returns what is wrong with the records of a batch, "" if nothing
// is. It trusts no length in them.
func checkRecords(p []byte, count uint32) string {
	found := uint32(0)
	for at := 0; at < len(p); found++ {
		if len(p)-at < recordHeader {
			return fmt.Sprintf("%d bytes after the last record", len(p)-at)
		}
		n := int64(binary.LittleEndian.Uint32(p[at:]))
		typ := p[at+4]
		if typ == 0 || p[at+5] != 0 || p[at+6] != 0 || p[at+7] != 0 {
			return fmt.Sprintf("record %d has no good header", found+1)
		}
		room := int64(len(p) - at - recordHeader)
		if (n+7)&^7 > room {
			return fmt.Sprintf("record %d has %d bytes, but %d are left", found+1, n, room)
		}
		if typ == typeSeal && (count != 1 || n != sealBody) {
			return "a seal that is not alone"
		}
		at += recordHeader + padded(int(n))
	}
	if found != count {
		return fmt.Sprintf("%d records, but the header says %d", found, count)
	}
	return ""
}
