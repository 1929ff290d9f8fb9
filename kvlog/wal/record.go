package wal

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Part of the file format, never changed.
const (
	// RecordHeader is the size of a record's header in bytes.
	RecordHeader = recordHeader

	recordHeader = 8
	typeSeal     = 255
	sealBody     = 8
	sealSize     = batchHeader + recordHeader + sealBody // a seal's whole batch
)

// ParseRecordHeader returns what the header of a record says: its type, and the
// bytes of its body. p has at least RecordHeader bytes. A record header has no
// checksum of its own: outside of a batch that was checked, trust neither.
func ParseRecordHeader(p []byte) (typ uint8, body int64) {
	return p[4], int64(binary.LittleEndian.Uint32(p))
}

// A buffer larger than keepBuffer, in bytes, is kept for keepBatches more batches
// that need none of that size: new memory costs a large value as much as its write.
const (
	keepBuffer  = 1 << 20
	keepBatches = 64
)

// Batch collects the records of one Append. The zero Batch is empty and ready
// for use. One goroutine at a time.
type Batch struct {
	buf   []byte // the batch as it will be written; its header is filled in by Append
	count uint32
	spare int // batches in a row that have not needed so large a buffer
}

// Reset empties the batch, to be filled again.
func (b *Batch) Reset() {
	if b.spare++; len(b.buf) > keepBuffer {
		b.spare = 0
	}
	if cap(b.buf) > keepBuffer && b.spare > keepBatches {
		b.buf = nil
	}
	b.buf, b.count = b.buf[:0], 0
}

// Add adds a record of n bytes, 0 to MaxSegment, and returns its body, all
// zeros, to be filled in before the next Add. The type is 1 to 254; Add panics
// if either is out of range.
func (b *Batch) Add(typ uint8, n int) []byte {
	body := b.AddDirty(typ, n)
	clear(body)
	return body
}

// AddDirty is Add, but for the body, which holds anything: all of it has to be
// filled in.
func (b *Batch) AddDirty(typ uint8, n int) []byte {
	if typ == 0 || typ == typeSeal || n < 0 || n > MaxSegment {
		panic(fmt.Sprintf("wal: record of type %d with %d bytes; types are 1 to 254, sizes 0 to %d", typ, n, MaxSegment))
	}
	return b.add(typ, n)
}

// AddBytes adds a record with this body, which is copied. Limits as for Add.
func (b *Batch) AddBytes(typ uint8, body []byte) {
	copy(b.AddDirty(typ, len(body)), body)
}

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

// Len returns the bytes that the batch takes in the log, its header included.
// It is also the place, counted from the batch's start, of the next record.
func (b *Batch) Len() int { return max(len(b.buf), batchHeader) }

// Records returns the number of records.
func (b *Batch) Records() int { return int(b.count) }

// RecordSize returns the bytes that a record with a body of n bytes takes.
func RecordSize(n int) int { return recordHeader + padded(n) }

func padded(n int) int { return (n + 7) &^ 7 }

// Record is one record as it stands in the log.
type Record struct {
	Type   uint8
	Offset int64  // of the record, its 8-byte header included, in the segment
	Body   []byte // valid until the next batch is read
}

// Records are the records of one batch.
type Records struct {
	// Segment is the number of the segment that they stand in.
	Segment uint64

	offset int64  // of bytes in the segment
	bytes  []byte // already checked
	count  int
}

// Len returns the number of records.
func (r Records) Len() int { return r.count }

// All returns the records in the order in which they were added.
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

// checkRecords says what is wrong with the records of a batch, or "". No length
// in them is trusted.
func checkRecords(p []byte, count uint32) string {
	found := uint32(0)
	for at := 0; at < len(p); found++ {
		if len(p)-at < recordHeader {
			return fmt.Sprintf("%d bytes behind the last record", len(p)-at)
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
