package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
)

// FuzzBatch reads any bytes as a batch, and once more with good checksums, so that the later
// checks run too. What is accepted is what a Batch with these records writes, except for
// the padding.
func FuzzBatch(f *testing.F) {
	pos := Pos{Segment: 1, Offset: pageSize, Seq: 7, Sum: 9}
	seal := batchWith(func(b *Batch) { b.add(typeSeal, sealBody)[0] = 2 })
	newCodec(testID).putHeader(seal.buf, 1, pos)
	f.Add(encode(testID, pos, "a", "", "something longer"), true)
	f.Add(encode(testID, pos, strings.Repeat("x", 1000)), false)
	f.Add(seal.buf, false)
	f.Add(seal.buf[:batchHeader], true)
	f.Add(bytes.Repeat([]byte{0xff}, 200), true)
	f.Add([]byte{}, false)
	c := newCodec(testID)
	f.Fuzz(func(t *testing.T, data []byte, good bool) {
		p := make([]byte, MinSegment-pageSize)
		n := copy(p, data) &^ 7
		if good && n >= batchHeader+recordHeader {
			c.putHeader(p[:n], binary.LittleEndian.Uint32(p[16:]), pos)
		}
		s, _ := imageSegment(append(make([]byte, pageSize), p...))
		b, fault, err := c.batch(&window{s: s}, pos)
		if err != nil {
			t.Fatal(err)
		}
		if fault != nil {
			if fault.what == "" {
				t.Error("refused without a reason")
			}
			return
		}
		var same Batch
		for r := range b.records().All() {
			copy(same.add(r.Type, len(r.Body)), r.Body)
			if at := r.Offset - pos.Offset; !bytes.Equal(p[at+recordHeader:][:len(r.Body)], r.Body) {
				t.Errorf("record %q is not at %d", r.Body, r.Offset)
			}
		}
		if len(same.buf) != len(b.bytes) || b.records().Len() != same.Records() {
			t.Errorf("accepted\n%x\nand its records are\n%x", b.bytes, same.buf)
		}
		if left := s.size - b.end().Offset; left < 0 || !b.isSeal() && left < sealSize {
			t.Errorf("accepted a batch that leaves %d bytes", left)
		}
	})
}

// FuzzSegmentHeader reads any bytes as a segment's header, and once more with a good
// checksum. It accepts only what putSegmentHeader writes.
func FuzzSegmentHeader(f *testing.F) {
	page := make([]byte, pageSize)
	putSegmentHeader(page, 3, MinSegment, testID)
	f.Add(page[:48], uint64(3), false)
	f.Add(page[:48], uint64(4), false)
	f.Add(page, uint64(3), false)
	putSegmentHeader(page, 3, -pageSize, testID)
	f.Add(page[:48], uint64(3), true)
	f.Add([]byte{}, uint64(0), true)
	f.Fuzz(func(t *testing.T, data []byte, number uint64, good bool) {
		p := make([]byte, pageSize)
		copy(p, data)
		if good {
			binary.LittleEndian.PutUint32(p[12:], segmentSum(p))
		}
		size, bad := parseSegmentHeader(p, number, testID)
		if bad != "" {
			return
		}
		if err := checkSize(size); err != nil {
			t.Error(err)
		}
		same := make([]byte, pageSize)
		putSegmentHeader(same, number, size, testID)
		if !bytes.Equal(p[:48], same[:48]) {
			t.Errorf("accepted\n%x\nwritten is\n%x", p[:48], same[:48])
		}
		if _, bad := parseSegmentHeader(p[:len(data)%pageSize], number, testID); bad == "" {
			t.Error("accepted a part of the page")
		}
	})
}

// FuzzTail overwrites a part of a log: of its last batch, which was not acknowledged, or of
// what precedes it. Either the start refuses, or everything that was acknowledged is there,
// and nothing else except perhaps the last batch.
func FuzzTail(f *testing.F) {
	x := newLongLog(f)
	all := make([]string, 0, 2*len(x.starts))
	if l, r, err := restart(x.o, x.from, x.named); err != nil {
		f.Fatal(err)
	} else if err := l.Close(); err != nil {
		f.Fatal(err)
	} else {
		all = append(all, r.got...)
	}
	acked := all[:len(all)-2] // the last batch has two records
	last := x.starts[len(x.starts)-1]
	f.Add(uint8(1), uint16(last.Offset), []byte("torn"), false)
	f.Add(uint8(1), uint16(last.Offset), make([]byte, batchHeader), false)
	f.Add(uint8(1), uint16(last.Offset+batchHeader), make([]byte, 500), true)
	f.Add(uint8(1), uint16(last.Offset), x.batch(0), false)
	f.Add(uint8(1), uint16(x.end.Offset), x.batch(2), false)
	f.Add(uint8(0), uint16(x.starts[1].Offset), []byte{1}, true)
	f.Add(uint8(0), uint16(x.starts[x.seal].Offset), make([]byte, sealSize), false)
	f.Add(uint8(1), uint16(pageSize), []byte{1, 2, 3}, false)
	f.Add(uint8(1), uint16(10), []byte{1, 2, 3}, false)
	f.Add(uint8(2), uint16(5000), []byte("garbage"), false)
	f.Add(uint8(2), uint16(0), make([]byte, pageSize), false)
	f.Fuzz(func(t *testing.T, file uint8, off uint16, data []byte, xor bool) {
		y := &longLog{disk: x.disk.Clone(), files: make(map[string][]byte)}
		y.o = x.o
		y.o.FS = y.disk
		for name, data := range x.files {
			y.files[name] = slices.Clone(data)
		}
		p := y.files[[]string{seg1, seg2, seg3}[file%3]]
		p = p[min(int(off), len(p)):]
		if file%3 == 1 && int64(off) < last.Offset {
			p = p[:min(int64(len(p)), last.Offset-int64(off))] // the last batch stays good
		}
		for i := range min(len(p), len(data)) {
			if xor {
				data[i] ^= p[i]
			}
			p[i] = data[i]
		}
		y.store(t)
		var damages []*disk.Damage
		end, err := Verify(y.o, x.from, x.named, func(d *disk.Damage) { damages = append(damages, d) })
		if err != nil {
			t.Fatal(err)
		}
		l, r, err := restart(y.o, x.from, x.named)
		if err != nil {
			if d := new(disk.Damage); !errors.As(err, &d) || len(damages) == 0 {
				t.Errorf("refused with %v, verify found %v", err, damages)
			}
			return
		}
		defer l.Close()
		if !slices.Equal(r.got, acked) && !slices.Equal(r.got, all) {
			t.Errorf("recovered %q", r.got)
		}
		if len(damages) > 0 || end.End != r.tail.End {
			t.Errorf("the start accepted it, verify found %v and its end at %+v, not %+v", damages, end.End, r.tail.End)
		}
		appendAll(t, l, "on")
		if _, again := mustRestart(t, y.o, x.from, x.named...); !slices.Equal(again.got, append(r.got, "1:on")) {
			t.Errorf("then recovered %q", again.got)
		}
	})
}
