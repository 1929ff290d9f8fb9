package wal

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
	"clouddragon/internal/test/memdisk"
)

const segmentOne = "log/00000001.seg"

// tail is the image of a log whose last batch a test tears.
type tail struct {
	file   []byte
	before Pos // where the last batch starts
	last   []byte
	early  []byte // a batch from before it
}

// threeBatches makes a log of three batches in one segment, with the next one ready.
func threeBatches(t *testing.T) (*memdisk.FS, Options, Pos, tail) {
	t.Helper()
	disk := memdisk.New()
	o := testOptions(disk)
	l, from := newLog(t, o)
	one := appendAll(t, l, "one", "eins")
	two := appendAll(t, l, "two", "zwei")
	three := appendAll(t, l, "three", strings.Repeat("drei", 200))
	file, err := disk.ReadFile(segmentOne)
	if err != nil {
		t.Fatal(err)
	}
	return disk, o, from, tail{file: file, before: two, last: file[two.Offset:three.Offset], early: file[one.Offset:two.Offset]}
}

// encode makes a batch as it would be written at pos.
func encode(id [16]byte, pos Pos, bodies ...string) []byte {
	b := batchOf(bodies...)
	newCodec(id).putHeader(b.buf, b.count, pos)
	return b.buf
}

func TestTornTailIsCut(t *testing.T) {
	whole := strings.Repeat("v", 300)
	for _, tc := range []struct {
		name string // the reason in Tail.Torn
		how  string
		tear func(x tail)
	}{
		{"", "nothing was written", func(x tail) { clear(x.last) }},
		{"partial header", "the first 20 bytes were written", func(x tail) { clear(x.last[20:]) }},
		{"partial header", "the header except its last byte was written, and no body", func(x tail) { clear(x.last[40:]) }},
		{"partial header", "noise", func(x tail) {
			for i := range x.last {
				x.last[i] = byte(i*7 + 1)
			}
		}},
		{"missing header", "the first sector was not written, later ones were", func(x tail) { clear(x.last[:512]) }},
		{"missing header", "only one byte far into the batch was written", func(x tail) {
			clear(x.last)
			x.file[len(x.file)-1] = 1
		}},
		{"partial body", "only the header was written", func(x tail) { clear(x.last[batchHeader:]) }},
		{"partial body", "one record of two was written", func(x tail) { clear(x.last[batchHeader+RecordSize(len("three")):]) }},
		{"bad checksum", "the last sector was not written", func(x tail) { clear(x.last[len(x.last)-100:]) }},
		{"bad checksum", "a bit is wrong", func(x tail) { x.last[batchHeader+recordHeader] ^= 1 }},
		{"bad checksum", "the sum is wrong", func(x tail) { x.last[4] ^= 1 }},
		{"stale batch", "an older batch of this place", func(x tail) {
			clear(x.last)
			pos := x.before
			pos.Seq--
			copy(x.last, encode(testID, pos, "stale"))
		}},
		{"batch of another position", "the batch before, once more", func(x tail) {
			clear(x.last)
			copy(x.last, x.early)
		}},
		{"batch of another position", "the next batch, of another segment", func(x tail) {
			clear(x.last)
			pos := x.before
			pos.Segment = 7
			copy(x.last, encode(testID, pos, "elsewhere"))
		}},
		{"partial header", "the next batch, of another directory", func(x tail) {
			clear(x.last)
			copy(x.last, encode([16]byte{1}, x.before, "foreign"))
		}},
		{"bad length", "longer than the segment", func(x tail) {
			x.last[15] = 0x7f
			fixHead(x.last)
		}},
		{"bad length", "shorter than a record", func(x tail) {
			copy(x.last[12:], []byte{batchHeader, 0, 0, 0})
			fixHead(x.last)
		}},
		{"bad length", "not a multiple of 8", func(x tail) {
			x.last[12]++
			fixHead(x.last)
		}},
		{"bad checksum", "its value is a later batch, as far as a client can know it", func(x tail) {
			clear(x.last)
			pos := Pos{Segment: 1, Offset: x.before.Offset + batchHeader + recordHeader, Seq: x.before.Seq + 1}
			copy(x.last, encode(testID, x.before, string(encode([16]byte{}, pos, whole))))
			x.last[4] ^= 1
		}},
		{"bad checksum", "its value is a batch of this log", func(x tail) {
			clear(x.last)
			copy(x.last, encode(testID, x.before, string(x.early)))
			x.last[4] ^= 1
		}},
		{"partial body", "a seal was begun", func(x tail) {
			clear(x.last)
			var b Batch
			b.add(typeSeal, sealBody)[0] = 2
			newCodec(testID).putHeader(b.buf, 1, x.before)
			copy(x.last, b.buf[:batchHeader])
		}},
	} {
		t.Run(tc.name+"/"+tc.how, func(t *testing.T) {
			disk, o, from, x := threeBatches(t)
			tc.tear(x)
			if err := disk.WriteFile(segmentOne, x.file); err != nil {
				t.Fatal(err)
			}
			wantClean(t, o, from, 1)
			l, r := mustRestart(t, o, from, 1)
			wantRecords(t, r, "one", "eins", "two", "zwei")
			if r.tail.Torn != tc.name || r.tail.End != x.before {
				t.Errorf("cut at %+v because of %q, want %q at %+v", r.tail.End, r.tail.Torn, tc.name, x.before)
			}
			// Nothing of it is left, and the log continues there.
			file, err := disk.ReadFile(segmentOne)
			if err != nil {
				t.Fatal(err)
			}
			if at := slices.IndexFunc(file[x.before.Offset:], func(b byte) bool { return b != 0 }); at >= 0 {
				t.Errorf("%d bytes after the end there is still garbage", at)
			}
			appendAll(t, l, "new")
			wantClean(t, o, from, 1)
			_, r = mustRestart(t, o, from, 1)
			wantRecords(t, r, "one", "eins", "two", "zwei", "new")
		})
	}
}

// fixHead corrects a header's own checksum after a test has changed the header.
func fixHead(p []byte) {
	binary.LittleEndian.PutUint32(p[8:], crc32.Update(newCodec(testID).seed, format.Castagnoli, p[12:batchHeader]))
}

// wantClean makes sure that Verify finds no damage.
func wantClean(t testing.TB, o Options, from Pos, segments ...uint64) Tail {
	t.Helper()
	tail, err := Verify(o, from, segments, func(d *disk.Damage) { t.Errorf("verify: %v", d) })
	if err != nil {
		t.Fatal(err)
	}
	return tail
}
