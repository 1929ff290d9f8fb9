package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"clouddragon/kvlog/wal"
)

// On the wire a batch is a header of 52 bytes, little-endian, and its records:
//
//	 0  from     28  the end of the log before it: segment 8, offset 8, seq 8, sum 4
//	28  segment   8  that it is in
//	36  size      8  of that segment, in bytes
//	44  count     4  records
//	48  length    4  bytes of the records
//
// A request has one or more of them.
const frameHeader = 52

// maxRecords is the largest size of the records of a batch in bytes: a segment.
const maxRecords = wal.MaxSegment

var le = binary.LittleEndian

// appendFrame appends a batch to p.
func appendFrame(p []byte, f wal.Frame) []byte {
	p = le.AppendUint64(p, f.From.Segment)
	p = le.AppendUint64(p, uint64(f.From.Offset))
	p = le.AppendUint64(p, f.From.Seq)
	p = le.AppendUint32(p, f.From.Sum)
	p = le.AppendUint64(p, f.Segment)
	p = le.AppendUint64(p, uint64(f.Size))
	p = le.AppendUint32(p, f.Count)
	p = le.AppendUint32(p, uint32(len(f.Records)))
	return append(p, f.Records...)
}

// readFrame reads a batch. Its records are in buf, which is returned larger if it was
// too small. The error is io.EOF at the end.
func readFrame(r io.Reader, buf []byte) (f wal.Frame, _ []byte, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return f, buf, err
	}
	f.From = wal.Pos{Segment: le.Uint64(h[0:]), Offset: int64(le.Uint64(h[8:])), Seq: le.Uint64(h[16:]), Sum: le.Uint32(h[24:])}
	f.Segment, f.Size, f.Count = le.Uint64(h[28:]), int64(le.Uint64(h[36:])), le.Uint32(h[44:])
	n := int64(le.Uint32(h[48:]))
	if n > maxRecords {
		return f, buf, fmt.Errorf("a batch of %d bytes: the most is %d", n, int64(maxRecords))
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	f.Records = buf[:n]
	if _, err := io.ReadFull(r, f.Records); err != nil {
		return f, buf, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return f, buf, nil
}
