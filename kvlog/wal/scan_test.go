package wal

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// image is a file that counts the bytes that are read.
type image struct {
	disk.File
	data []byte
	read int64
}

func (f *image) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	f.read += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// imageSegment is segment 1 with this content.
func imageSegment(data []byte) (*Segment, *image) {
	f := &image{data: data}
	return &Segment{number: 1, path: "image", file: &handle{file: f}, size: int64(len(data))}, f
}

// A later batch is found wherever it is, even across the boundary of two reads.
func TestScanFindsALaterBatchAnywhere(t *testing.T) {
	c := newCodec(testID)
	data := make([]byte, 2*windowSize)
	for off := int64(pageSize); off <= int64(len(data))-batchHeader-16; off += 8 {
		if d := (off - pageSize) % windowSize; d > 256 && d < windowSize-256 {
			continue
		}
		b := encode(testID, Pos{Segment: 1, Offset: off, Seq: 41}, "late")
		copy(data[off:], b)
		s, _ := imageSegment(data)
		l, err := c.scan(s, pageSize, 41, false)
		if err != nil || !l.found || l.first.offset != uint64(off) || l.last.seq != 42 || l.from != off || l.to > off+int64(len(b)) || l.to < off+batchHeader {
			t.Fatalf("batch at %d: found %+v, %v", off, l, err)
		}
		if l, err := c.scan(s, pageSize, 42, false); err != nil || l.found {
			t.Fatalf("batch 42 at %d is later than 42: %+v, %v", off, l, err)
		}
		clear(data[off:][:len(b)])
	}
}

func TestScanFindsAllGarbage(t *testing.T) {
	for _, size := range []int{2 * pageSize, windowSize + pageSize, 3*windowSize + 5} {
		data := make([]byte, size)
		for _, at := range []int{pageSize, pageSize + 9, min(2*pageSize, size-8), size / 2, size - 48, size - 1} {
			data[at] = 1
			s, _ := imageSegment(data)
			l, err := newCodec(testID).scan(s, pageSize, 0, false)
			if err != nil || l.found || l.from > int64(at) || l.to <= int64(at) || l.to-l.from > 8 {
				t.Errorf("byte at %d of %d: garbage from %d to %d, %v", at, size, l.from, l.to, err)
			}
			data[at] = 0
		}
	}
}

// The worst garbage consists only of headers of the longest batches, each with a good
// checksum and in its place.
func TestGarbageIsReadOnceInLittleMemory(t *testing.T) {
	data := make([]byte, 4<<20)
	p := batchOf("x").buf
	for off := pageSize; off+len(p) <= len(data); off += batchHeader {
		newCodec(testID).putHeader(p, 1, Pos{Segment: 1, Offset: int64(off), Seq: 3})
		h := data[off:][:batchHeader]
		copy(h, p)
		copy(h[12:], []byte{0, 0, 0xf0, 0})
		fixHead(h)
	}
	s, f := imageSegment(data)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := newCodec(testID).scan(s, pageSize, 4, false)
	runtime.ReadMemStats(&after)
	if err != nil || l.found {
		t.Errorf("found %+v, %v", l, err)
	}
	if most := s.size + s.size/100; f.read > most {
		t.Errorf("read %d bytes of %d", f.read, s.size)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*windowSize {
		t.Errorf("took %d bytes of memory", got)
	}
}

func TestReplayHoldsOneBatchInMemory(t *testing.T) {
	o := testOptions(memdisk.New())
	o.Segment = 8 << 20
	l, from := newLog(t, o)
	for range 14 {
		appendAll(t, l, strings.Repeat("x", 500<<10))
	}
	again, err := Open(o, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	_, err = again.Replay(func(uint64, Records) error { n++; return nil })
	runtime.ReadMemStats(&after)
	if err != nil || n != 14 {
		t.Fatalf("replayed %d batches, %v", n, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 3<<20 {
		t.Errorf("14 batches of 500 KiB took %d bytes of memory", got)
	}
}

// Whatever a crash can leave of a segment that was not yet part of the log is repaired or
// made again, and none of its contents count.
func TestNextSegmentThatACrashLeftIsRepaired(t *testing.T) {
	for name, tc := range map[string]struct {
		leave func(p []byte) []byte
		stays bool
	}{
		"as it should be":      {func(p []byte) []byte { return p }, true},
		"empty":                {func(p []byte) []byte { return nil }, false},
		"less than a page":     {func(p []byte) []byte { return p[:1000] }, false},
		"header, but short":    {func(p []byte) []byte { return p[:6000] }, false},
		"a page":               {func(p []byte) []byte { return p[:pageSize] }, false},
		"zeros":                {func(p []byte) []byte { clear(p); return p }, false},
		"zeros, too long":      {func(p []byte) []byte { clear(p); return append(p, p...) }, false},
		"garbage in the body":  {func(p []byte) []byte { copy(p[5000:], "garbage"); return p }, true},
		"garbage, header lost": {func(p []byte) []byte { clear(p); copy(p[5000:], "garbage"); return p }, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLongLog(t)
			x.files[seg3] = tc.leave(x.files[seg3])
			x.store(t)
			wantClean(t, x.o, x.from, 1)
			l, r := mustRestart(t, x.o, x.from, 1)
			if r.tail.End != x.end || r.tail.Torn != "" {
				t.Errorf("the log ends at %+v torn %q, want %+v", r.tail.End, r.tail.Torn, x.end)
			}
			if l.NeedsPrepare() == tc.stays {
				t.Errorf("NeedsPrepare is %v", !tc.stays)
			}
			prepare(t, l)
			got, err := x.disk.ReadFile(seg3)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, MinSegment)
			putSegmentHeader(want, 3, MinSegment, testID)
			if !bytes.Equal(got, want) {
				t.Error("the next segment is not as it should be")
			}
			for range 3 { // rolls
				appendAll(t, l, strings.Repeat("y", 1000))
			}
			_, again := mustRestart(t, x.o, x.from, 1)
			if again.tail.End.Segment != 3 || len(again.got) != len(r.got)+3 {
				t.Errorf("then the log ends at %+v with %d records, want three more than %d", again.tail.End, len(again.got), len(r.got))
			}
		})
	}
}
