package wal

import (
	"bytes"
	"testing"

	"clouddragon/internal/test/golden"
)

// The bytes below are the format: if one of these tests fails, existing data can no
// longer be read.

func TestGoldenSegmentHeader(t *testing.T) {
	p := bytes.Repeat([]byte{0xff}, pageSize)
	putSegmentHeader(p, 258, 64<<20, testID)
	golden.Want(t, "the header", p, `
		63646c6f67736567  01000000  be8fccd3
		0201000000000000  0000000400000000
		746865206469726563746f7279204944`+golden.Zeros(pageSize-48))
	if size, bad := parseSegmentHeader(p, 258, testID); size != 64<<20 || bad != "" {
		t.Errorf("read as %d bytes, %q", size, bad)
	}
}

func TestGoldenBatch(t *testing.T) {
	b := batchOf("hello", "")
	b.AddBytes(254, []byte("12345678"))
	sum := newCodec(testID).putHeader(b.buf, b.count, Pos{Segment: 258, Offset: 4096, Seq: 772, Sum: 0x01020304})
	golden.Want(t, "the batch", b.buf, `
		cd4c4f47  8f42fa67  95165618  58000000  03000000  04030201
		0503000000000000  0201000000000000  0010000000000000
		05000000 01 000000  68656c6c6f000000
		00000000 01 000000
		08000000 fe 000000  3132333435363738`)
	if h, ok := newCodec(testID).header(b.buf); !ok || h.sum != sum || h.end() != (Pos{Segment: 258, Offset: 4096 + 0x58, Seq: 773, Sum: sum}) {
		t.Errorf("read as %+v, %v", h, ok)
	}
}

func TestGoldenSeal(t *testing.T) {
	var b Batch
	copy(b.add(typeSeal, sealBody), "\x03\x01")
	newCodec(testID).putHeader(b.buf, b.count, Pos{Segment: 258, Offset: 8000, Seq: 9, Sum: 1})
	if len(b.buf) != sealSize {
		t.Errorf("takes %d bytes, %d are held free", len(b.buf), sealSize)
	}
	golden.Want(t, "the batch", b.buf, `
		cd4c4f47  468356aa  f8fb9842  40000000  01000000  01000000
		0a00000000000000  0201000000000000  401f000000000000
		08000000 ff 000000  0301000000000000`)
}

func TestGoldenSegmentNames(t *testing.T) {
	for number, want := range map[uint64]string{1: "00000001.seg", 12345678: "12345678.seg", 123456789: "123456789.seg"} {
		if got := segmentName(number); got != want {
			t.Errorf("segment %d is %s, want %s", number, got, want)
		}
	}
}

// Files that are not segments are left alone.
func TestOtherFilesAreNoSegments(t *testing.T) {
	x := newLongLog(t)
	for _, name := range []string{"1.seg", "00000000.seg", "0000000a.seg", "000000001.seg", "00000009.seg.bak", "00000009"} {
		if err := x.disk.WriteFile("log/"+name, []byte("not ours")); err != nil {
			t.Fatal(err)
		}
	}
	files := len(x.disk.Files())
	if _, r := mustRestart(t, x.o, x.from, 1); r.tail.End != x.end {
		t.Errorf("the log ends at %+v, want %+v", r.tail.End, x.end)
	}
	if got := x.disk.Files(); len(got) != files {
		t.Errorf("left are %v", got)
	}
}
