package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// windowSize is how many bytes of a file are read at a time.
const windowSize = 256 << 10

// window reads a segment from front to back through a buffer of 256 KiB, or of the
// largest batch so far if that is more.
type window struct {
	s   *Segment
	off int64
	buf []byte
	end int64 // it does not read ahead beyond this offset; 0: the segment's end
}

// at returns the n bytes at off. They are valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off+int64(n) > w.s.size {
		return nil, fmt.Errorf("%s: read %d bytes at offset %d: the segment has %d", w.s.path, n, off, w.s.size)
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		end := w.s.size
		if w.end > 0 {
			end = w.end
		}
		want := int(max(int64(n), min(windowSize, end-off)))
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		w.off, w.buf = off, w.buf[:want]
		if got, err := w.s.file.ReadAt(w.buf, off); got < want {
			w.buf = w.buf[:0]
			return nil, fmt.Errorf("%s: read %d bytes at offset %d: got %d: %w", w.s.path, want, off, got, err)
		}
	}
	return w.buf[off-w.off:][:n], nil
}

// batch is a batch that has passed its checks.
type batch struct {
	header
	bytes []byte // header included; valid until the window moves
}

func (b batch) records() Records {
	return Records{Segment: b.segment, offset: int64(b.offset) + batchHeader, bytes: b.bytes[batchHeader:], count: int(b.count)}
}

func (b batch) isSeal() bool { return b.bytes[batchHeader+4] == typeSeal }

// fault says why there is no good batch at a position.
type fault struct {
	what string
	// written means that no interrupted write can have left this, so it is damage even if
	// nothing follows.
	written bool
}

// batch reads the batch that belongs at pos in the window's segment, and accepts no
// other. f says why it is not there, if it is not. err is an error of the disk, which
// proves nothing about the batch.
func (c codec) batch(w *window, pos Pos) (b batch, f *fault, err error) {
	left := w.s.size - pos.Offset
	if left < batchHeader {
		return batch{}, &fault{what: "end of the segment"}, nil
	}
	p, err := w.at(pos.Offset, batchHeader)
	if err != nil {
		return batch{}, nil, err
	}
	h, ok := c.header(p)
	if !ok {
		what := "partial header"
		if allZero(p) {
			what = "missing header"
		}
		return batch{}, &fault{what: what}, nil
	}
	if f := h.checkPlace(pos, left); f != nil {
		return batch{}, f, nil
	}
	if p, err = w.at(pos.Offset, int(h.length)); err != nil {
		return batch{}, nil, err
	}
	wrong, good := checkRecords(p[batchHeader:], h.count), c.sum(p) == h.sum
	switch {
	case !good && wrong != "":
		return batch{}, &fault{what: "partial body"}, nil
	case !good:
		return batch{}, &fault{what: "bad checksum"}, nil
	case wrong != "":
		return batch{}, &fault{what: "the checksum is good, but " + wrong, written: true}, nil
	}
	b = batch{header: h, bytes: p}
	if !b.isSeal() && int64(h.length) > left-sealSize {
		return batch{}, &fault{what: "batch leaves no room for the seal", written: true}, nil
	}
	if b.isSeal() {
		if next := binary.LittleEndian.Uint64(p[batchHeader+recordHeader:]); next != h.segment+1 {
			return batch{}, &fault{what: fmt.Sprintf("seal names segment %d as the next one", next), written: true}, nil
		}
	}
	return b, nil, nil
}

// checkPlace returns why a batch does not belong at pos, nil if it does. left is how many
// bytes the segment has from pos to its end.
func (h header) checkPlace(pos Pos, left int64) *fault {
	length := int64(h.length)
	switch {
	case !h.isAt(pos.Segment, pos.Offset):
		return &fault{what: "batch of another position"}
	case h.seq <= pos.Seq:
		return &fault{what: "stale batch"}
	case h.seq != pos.Seq+1:
		return &fault{what: fmt.Sprintf("batch %d is where batch %d belongs", h.seq, pos.Seq+1), written: true}
	case h.prev != pos.Sum:
		return &fault{what: fmt.Sprintf("follows a batch with checksum %08x, the one before it has %08x", h.prev, pos.Sum), written: true}
	case length%8 != 0 || length < batchHeader+recordHeader || length > left:
		return &fault{what: "bad length"}
	}
	return nil
}

// leftover says what a scan found after the last good batch.
type leftover struct {
	from, to    int64  // the range of all bytes that are not zero; both 0 if there are none
	found       bool   // there are headers of later batches
	first, last header // the first of these in the file, and the one with the highest number
}

// scan searches a segment from offset from, a multiple of 8, to its end for bytes
// that are not zero and for headers of batches later than seq. With one set it
// stops at the first such header. It reads each byte once and checks only the header's
// own checksum, so no garbage can make it slow.
func (c codec) scan(s *Segment, from int64, seq uint64, one bool) (leftover, error) {
	var l leftover
	w := window{s: s}
	for off := from; off < s.size; {
		n := int(min(windowSize, s.size-off))
		p, err := w.at(off, n)
		if err != nil {
			return l, err
		}
		step := n
		if off+int64(n) < s.size {
			step = n - batchHeader + 8 // a header across the boundary is complete in the next piece
		}
		for at := 0; at < step; at += 8 {
			if at+pageSize <= step && allZero(p[at:at+pageSize]) {
				at += pageSize - 8
				continue
			}
			word := p[at:min(at+8, n)]
			if allZero(word) {
				continue
			}
			here := off + int64(at)
			if l.to == 0 {
				l.from = here
			}
			l.to = here + int64(len(word))
			if n-at < batchHeader {
				continue
			}
			h, ok := c.header(p[at:])
			if !ok || !h.isAt(s.number, here) || h.seq <= seq {
				continue
			}
			if !l.found {
				l.first, l.found = h, true
				if one {
					return l, nil
				}
			}
			if h.seq > l.last.seq {
				l.last = h
			}
		}
		off += int64(step)
	}
	return l, nil
}

var zeroPage [pageSize]byte

// allZero reports whether p, at most a page, is all zeros.
func allZero(p []byte) bool {
	return bytes.Equal(p, zeroPage[:len(p)])
}
