package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// longLog is a log with two segments, of which the first is sealed, and a third one ready.
type longLog struct {
	disk   *memdisk.FS
	o      Options
	from   Pos
	starts []Pos    // of each batch, seals included: batch n starts at starts[n-1]
	end    Pos      // after the last
	seal   int      // the first segment's, in starts
	named  []uint64 // by CHECKPOINT
	files  map[string][]byte
}

const (
	seg1 = "log/00000001.seg"
	seg2 = "log/00000002.seg"
	seg3 = "log/00000003.seg"
	seg4 = "log/00000004.seg"
)

func newLongLog(t testing.TB) *longLog {
	t.Helper()
	x := &longLog{disk: memdisk.New(), named: []uint64{1}, files: make(map[string][]byte)}
	x.o = testOptions(x.disk)
	l, from := newLog(t, x.o)
	x.from, x.end = from, from
	for i := 0; x.end.Segment < 2 || x.end.Offset < 6000; i++ {
		next := appendAll(t, l, fmt.Sprintf("batch %d", i), strings.Repeat("x", 300))
		if next.Segment != x.end.Segment {
			x.seal = len(x.starts)
			sealed, err := x.disk.ReadFile(seg1)
			if err != nil {
				t.Fatal(err)
			}
			h, ok := newCodec(testID).header(sealed[x.end.Offset:])
			if !ok {
				t.Fatal("no seal where the first segment ends")
			}
			x.starts = append(x.starts, x.end)
			x.end = Pos{Segment: 2, Offset: pageSize, Seq: h.seq, Sum: h.sum}
		}
		x.starts = append(x.starts, x.end)
		x.end = next
	}
	prepare(t, l)
	for _, name := range x.disk.Files() {
		var err error
		if x.files[name], err = x.disk.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// at is the image of the log from a batch's start to its segment's end.
func (x *longLog) at(n int) []byte {
	pos := x.starts[n]
	return x.files[x.o.path(pos.Segment)][pos.Offset:]
}

// batch is the image of one batch.
func (x *longLog) batch(n int) []byte {
	p := x.at(n)
	return p[:binary.LittleEndian.Uint32(p[12:])]
}

// replace overwrites a batch with another one, which must not be shorter.
func (x *longLog) replace(n int, b []byte) {
	clear(x.batch(n))
	copy(x.at(n), b)
}

// store puts the images on the disk.
func (x *longLog) store(t testing.TB) {
	t.Helper()
	for _, name := range []string{seg1, seg2, seg3, seg4} {
		var err error
		if data, ok := x.files[name]; ok {
			err = x.disk.WriteFile(name, data)
		} else if slices.Contains(x.disk.Files(), name) {
			err = x.disk.Remove(name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func batchWith(add func(b *Batch)) *Batch {
	b := new(Batch)
	add(b)
	return b
}

func TestDamageIsRefusedAndNamed(t *testing.T) {
	// In each case the damage is reported at offset(x) of file.
	type where func(x *longLog) int64
	startOf := func(n int) where { return func(x *longLog) int64 { return x.starts[n].Offset } }
	sealOf1 := func(x *longLog) int64 { return x.starts[x.seal].Offset }
	lastOf := func(x *longLog) int64 { return x.starts[len(x.starts)-1].Offset }
	at := func(off int64) where { return func(*longLog) int64 { return off } }
	for _, tc := range []struct {
		name   string
		harm   func(x *longLog)
		file   string
		offset where
		what   string // part of What
		lost   string // part of Lost
	}{
		{"bit in a body", func(x *longLog) { x.at(2)[100] ^= 4 }, seg1, startOf(2), "bad checksum, though a later batch, 4,", "batches 3 to "},
		{"bit in a header", func(x *longLog) { x.at(2)[25] ^= 4 }, seg1, startOf(2), "partial header, though a later batch, 4,", "batches 3 to "},
		{"batch zeroed", func(x *longLog) { clear(x.batch(2)) }, seg1, startOf(2), "missing header, though a later batch, 4,", "batches 3 to "},
		{"sector zeroed", func(x *longLog) { clear(x.files[seg1][pageSize+512:][:512]) }, seg1, startOf(1), "though a later batch, 4,", "batches 2 to "},
		{"batch in the place of another", func(x *longLog) { x.replace(2, slices.Clone(x.batch(3))) }, seg1, startOf(2), "batch of another position", "batches 3 to "},
		{"last of a segment, the seal after it is good", func(x *longLog) { x.at(x.seal - 1)[60]++ }, seg1,
			func(x *longLog) int64 { return x.starts[x.seal-1].Offset }, "bad checksum", "batches "},
		{"seal, batches follow in the next segment", func(x *longLog) { x.at(x.seal)[60]++ }, seg1, sealOf1, "of log/00000002.seg", "batches "},
		{"seal zeroed", func(x *longLog) { clear(x.batch(x.seal)) }, seg1, sealOf1, "missing header", "batches "},
		{"all from the second batch on zeroed in a sealed segment", func(x *longLog) { clear(x.at(1)) }, seg1, startOf(1), "missing header", "batches 2 to "},
		{"first batch of the second segment", func(x *longLog) { x.files[seg2][pageSize+60]++ }, seg2, at(pageSize), "bad checksum", "batches "},
		{"the last but one, and of the last only the header is left", func(x *longLog) {
			x.at(len(x.starts) - 2)[100]++
			clear(x.at(len(x.starts) - 1)[batchHeader:])
		}, seg2, func(x *longLog) int64 { return x.starts[len(x.starts)-2].Offset }, "bad checksum", "batches "},
		{"sealed segment's successor is missing", func(x *longLog) { delete(x.files, seg2); delete(x.files, seg3) }, seg2, at(0), "is missing", "every batch"},
		{"a segment between two is missing", func(x *longLog) { delete(x.files, seg2) }, seg2, at(0), "is missing, though segment 3 is there", "every batch"},
		{"header of a sealed segment's successor", func(x *longLog) { x.files[seg2][13]++ }, seg2, at(0), "header has checksum", "every batch"},
		{"header of a sealed segment's successor is zeroed", func(x *longLog) { clear(x.files[seg2][:pageSize]) }, seg2, at(0), "not that of a log segment", "every batch"},
		{"sealed segment's successor is too short", func(x *longLog) { x.files[seg2] = x.files[seg2][:6000] }, seg2, at(6000), "has 6000 bytes, its header says 8192", ""},
		{"last batch follows another one", func(x *longLog) {
			pos := x.starts[len(x.starts)-1]
			pos.Sum++
			x.replace(len(x.starts)-1, encode(testID, pos, "x"))
		}, seg2, lastOf, "follows a batch with checksum", "batch "},
		{"last batch has too high a number", func(x *longLog) {
			pos := x.starts[len(x.starts)-1]
			pos.Seq += 5
			x.replace(len(x.starts)-1, encode(testID, pos, "x"))
		}, seg2, lastOf, "is where batch", "batches "},
		{"record longer than its batch, checksum good", func(x *longLog) {
			b := batchOf("record")
			b.buf[batchHeader] = 200
			newCodec(testID).putHeader(b.buf, 1, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "the checksum is good, but record 1 has 200 bytes, but 8 are left", "batch "},
		{"record of the largest length, checksum good", func(x *longLog) {
			b := batchOf("record")
			copy(b.buf[batchHeader:], "\xff\xff\xff\xff")
			newCodec(testID).putHeader(b.buf, 1, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "the checksum is good, but record 1 has 4294967295 bytes", "batch "},
		{"fewer records than the header says", func(x *longLog) {
			b := batchOf("record")
			newCodec(testID).putHeader(b.buf, 2, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "1 records, but the header says 2", "batch "},
		{"record of type 0", func(x *longLog) {
			b := batchOf("record")
			b.buf[batchHeader+4] = 0
			newCodec(testID).putHeader(b.buf, 1, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "record 1 has no good header", "batch "},
		{"seal that is not alone", func(x *longLog) {
			b := batchWith(func(b *Batch) { b.Add(1, 1); b.add(typeSeal, sealBody)[0] = 3 })
			newCodec(testID).putHeader(b.buf, 2, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "a seal that is not alone", "batch "},
		{"seal that names another segment", func(x *longLog) {
			b := batchWith(func(b *Batch) { b.add(typeSeal, sealBody)[0] = 9 })
			newCodec(testID).putHeader(b.buf, 1, x.starts[len(x.starts)-1])
			x.replace(len(x.starts)-1, b.buf)
		}, seg2, lastOf, "seal names segment 9", "batch "},
		{"batch that leaves no room for the seal", func(x *longLog) {
			pos := x.starts[len(x.starts)-1]
			x.replace(len(x.starts)-1, encode(testID, pos, strings.Repeat("x", int(MinSegment-pos.Offset)-batchHeader-recordHeader-sealSize+8)))
		}, seg2, lastOf, "leaves no room for the seal", "batch "},
		{"next segment is of another directory", func(x *longLog) {
			putSegmentHeader(x.files[seg3], 3, MinSegment, [16]byte{1})
		}, seg3, at(0), "belongs to the data directory with ID 01", "every batch"},
		{"next segment is another one's copy", func(x *longLog) { copy(x.files[seg3], x.files[seg1][:pageSize]) }, seg3, at(0), "says that this is segment 1, its name says 3", "every batch"},
		{"next segment holds batches", func(x *longLog) {
			pos := x.end
			pos.Segment, pos.Offset = 3, pageSize
			copy(x.files[seg3][pageSize:], encode(testID, pos, "x"))
		}, seg2, func(x *longLog) int64 { return x.end.Offset }, "missing header, though a later batch", "batch"},
		{"a segment too far", func(x *longLog) {
			x.files[seg4] = slices.Clone(x.files[seg3])
			putSegmentHeader(x.files[seg4], 4, MinSegment, testID)
			delete(x.files, seg3)
		}, seg3, at(0), "is missing, though segment 4 is there", "every batch"},
		{"segment that CHECKPOINT names is missing", func(x *longLog) { delete(x.files, seg3); x.named = []uint64{1, 2, 3} }, seg3, at(0), "is missing", "every batch"},
		{"segment that CHECKPOINT names has no header", func(x *longLog) { clear(x.files[seg3]); x.named = []uint64{1, 2, 3} }, seg3, at(0), "not that of a log segment", "every batch"},
		{"segment that CHECKPOINT names is empty", func(x *longLog) { x.files[seg1] = nil }, seg1, at(0), "cut off: 0 bytes of 4096", "every batch"},
		{"a newer format", func(x *longLog) { x.files[seg1][8] = 2 }, seg1, at(0), "version 2, this program reads version 1", "every batch"},
		{"a size that cannot be", func(x *longLog) {
			putSegmentHeader(x.files[seg1], 1, MinSegment+1, testID)
		}, seg1, at(0), "segment size of 8193 bytes", "every batch"},
		{"CHECKPOINT points after the segment", func(x *longLog) { x.from.Offset = MinSegment + 8 }, seg1, at(MinSegment + 8), "has 8192 bytes", "every batch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newLongLog(t)
			tc.harm(x)
			x.store(t)
			before := x.disk.Len()
			offset := tc.offset(x)
			_, _, err := restart(x.o, x.from, x.named)
			var d *disk.Damage
			if !errors.As(err, &d) {
				t.Fatalf("got %v, want a *disk.Damage", err)
			}
			if d.File != tc.file || d.Offset != offset || !strings.Contains(d.What, tc.what) || !strings.Contains(d.Lost, tc.lost) || d.Lost == "" {
				t.Errorf("got %s at %d: %q, lost %q;\nwant %s at %d: %q, lost %q", d.File, d.Offset, d.What, d.Lost, tc.file, offset, tc.what, tc.lost)
			}
			for _, part := range []string{d.File, fmt.Sprint(d.Offset), d.What, d.Lost} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message %q lacks %q", err, part)
				}
			}
			if x.disk.Len() != before {
				t.Errorf("the refused start wrote: %v", x.disk.Journal()[before:])
			}
			var found []string
			if _, err := Verify(x.o, x.from, x.named, func(d *disk.Damage) { found = append(found, fmt.Sprintf("%s at %d", d.File, d.Offset)) }); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(found, fmt.Sprintf("%s at %d", tc.file, offset)) {
				t.Errorf("verify found %v, not the damage that the start refused", found)
			}
			if x.disk.Len() != before {
				t.Errorf("verify wrote: %v", x.disk.Journal()[before:])
			}
			if n := x.disk.OpenHandles() - 4; n > 0 { // of the log that made it: three segments
				t.Errorf("%d files were left open", n)
			}
		})
	}
}

// After a read error nothing may be cut off.
func TestReadErrorIsNoTornTail(t *testing.T) {
	x := newLongLog(t)
	before := x.disk.Len()
	reads := 0
	for fail := 1; ; fail++ {
		reads = 0
		x.disk.Fail(func(op memdisk.Op) error {
			if op.Kind != memdisk.Read {
				return nil
			}
			if reads++; reads == fail {
				return syscall.EIO
			}
			return nil
		})
		l, _, err := restart(x.o, x.from, x.named)
		if reads < fail {
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			break
		}
		var d *disk.Damage
		if !errors.Is(err, syscall.EIO) || errors.As(err, &d) {
			t.Errorf("read %d failed and the start says %v", fail, err)
		}
		if cut := x.disk.Journal()[before:]; len(cut) > 0 && slices.ContainsFunc(cut, func(op memdisk.Op) bool { return op.Kind == memdisk.Truncate || op.Kind == memdisk.Remove }) {
			t.Errorf("read %d failed and the start did %v", fail, cut)
		}
	}
	if reads < 4 {
		t.Errorf("a start took only %d reads", reads)
	}
}
