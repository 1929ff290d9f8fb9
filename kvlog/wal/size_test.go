package wal

import (
	"testing"

	"clouddragon/internal/test/memdisk"
)

// On a small disk segments are small enough that eight fit, but large enough for the largest
// batch, unless two of them would not fit.
func TestSegmentsAreSmallerOnASmallDisk(t *testing.T) {
	const segment, least = 1 << 20, 200 << 10
	for _, c := range []struct{ room, want int64 }{
		{100 << 20, 1 << 20},
		{9 << 20, 1 << 20}, // a sixteenth is left for other files
		{8 << 20, 512 << 10},
		{4 << 20, 256 << 10},
		{1 << 20, 256 << 10},
		{480 << 10, 224 << 10},
		{100 << 10, least}, // it has no room even for this
	} {
		fs := memdisk.New()
		fs.SetRoom(c.room)
		o := Options{FS: fs, Dir: "log", Segment: segment, Least: least}
		if got, err := o.fit(0); err != nil || got != c.want {
			t.Errorf("segments of %d bytes for %d bytes of log: %v, want %d", got, c.room, err, c.want)
		}
		if got, err := (Options{FS: fs, Dir: "log", Segment: segment}).fit(0); err != nil || got != segment {
			t.Errorf("without Least: segments of %d bytes for %d bytes of log: %v, want %d", got, c.room, err, segment)
		}
	}
}

// When the disk has room again, segments have their full size again.
func TestSegmentsGrowWithTheirDisk(t *testing.T) {
	fs := memdisk.New()
	fs.SetRoom(2 << 20)
	o := testOptions(fs)
	o.Segment, o.Least = 1<<20, 100<<10
	l, _ := newLog(t, o)
	prepare(t, l)
	if got := l.SegmentSize(); got != 128<<10 {
		t.Errorf("on a disk of 2 MiB the first segment has %d bytes, want %d", got, 128<<10)
	}
	fs.SetRoom(100 << 20)
	for range 3 {
		b := batchOf("x")
		b.BeginSegment()
		if _, err := l.Append(b); err != nil {
			t.Fatal(err)
		}
		prepare(t, l)
	}
	if got := l.SegmentSize(); got != 1<<20 {
		t.Errorf("on a disk of 100 MiB the fourth segment has %d bytes, want %d", got, 1<<20)
	}
	// Its live data must fit into a later one.
	fs.SetRoom(fs.Used())
	if got, err := l.fit(); err != nil || got != 1<<20 {
		t.Errorf("after a segment of %d bytes one of %d would be made: %v", 1<<20, got, err)
	}
}
