package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// If the disk is too small for two segments of the full size, the second one is smaller.
func TestPrepareMakesASmallerSegmentOnATinyDisk(t *testing.T) {
	const full = 2 << 20
	for _, tc := range []struct{ room, want int64 }{
		{full, full}, {full - 1, full / 2}, {full / 2, full / 2}, {full/2 - 1, full / 4}, {full / 8, full / 8},
	} {
		t.Run(fmt.Sprint(tc.room), func(t *testing.T) {
			mem := memdisk.New()
			o := testOptions(mem)
			o.Segment = full
			l, from := tightLog(t, o, tc.room)
			if err := l.Prepare(); !disk.IsFull(err) {
				t.Fatalf("got %v, want an error of a full disk", err)
			}
			if st := l.Stats(); st.Segments != 2 || st.Bytes != full+tc.want {
				t.Fatalf("%+v, want a second segment of %d bytes", st, tc.want)
			}
			// The log continues in it, and finds it again.
			want := []string{strings.Repeat("a", l.Room(true)-batchHeader-recordHeader), strings.Repeat("b", int(tc.want)/2)}
			for _, body := range want {
				if _, err := l.Append(batchOf(body)); err != nil {
					t.Fatal(err)
				}
			}
			again, r := mustRestart(t, o, from, 1, 2)
			if r.tail.End.Segment != 2 || len(r.got) != 2 {
				t.Errorf("ends in segment %d with %d records", r.tail.End.Segment, len(r.got))
			}
			if st := again.Stats(); st.Bytes != full+tc.want {
				t.Errorf("%+v after a restart", st)
			}
		})
	}
}

// tightLog opens a new log on a disk that has room bytes besides its first segment.
func tightLog(t *testing.T, o Options, room int64) (*Log, Pos) {
	t.Helper()
	from, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	mem := o.FS.(*memdisk.FS)
	mem.SetRoom(mem.Used() + room)
	l, _ := mustRestart(t, o, from, 1)
	return l, from
}

func TestPrepareOnAFullDiskLeavesNothingBehind(t *testing.T) {
	mem := memdisk.New()
	o := testOptions(mem)
	o.Segment = 1 << 20
	l, from := tightLog(t, o, leastSegment-1)
	used := mem.Used()
	for range 2 {
		if err := l.Prepare(); !disk.IsFull(err) {
			t.Fatalf("got %v, want an error of a full disk", err)
		}
	}
	if files := mem.Files(); len(files) != 1 || mem.Used() != used {
		t.Errorf("left %v with %d bytes, want one of %d", files, mem.Used(), used)
	}
	if !l.NeedsPrepare() {
		t.Error("NeedsPrepare is false on a full disk")
	}
	appendAllowed := batchOf("this one still has room")
	if _, err := l.Append(appendAllowed); err != nil {
		t.Fatal(err)
	}
	mem.SetRoom(-1)
	prepare(t, l)
	_, r := mustRestart(t, o, from, 1, 2)
	wantRecords(t, r, "this one still has room")
}

// The log knows one segment ahead that the disk is full. Then only calls that free room
// may use the next segment, so that it is empty when the log gets to it.
func TestLastSegmentIsHeldBack(t *testing.T) {
	mem := memdisk.New()
	o := testOptions(mem)
	o.Segment = 64 << 10
	l, _ := newLog(t, o)
	whole := int(o.Segment - pageSize - sealSize)
	check := func(state string, anyone, frees int, last bool) {
		t.Helper()
		if a, f := l.Room(false), l.Room(true); a != anyone || f != frees || l.Last() != last {
			t.Errorf("%s: room for %d bytes, %d for frees, last: %v; want %d, %d, %v", state, a, f, l.Last(), anyone, frees, last)
		}
	}
	check("reserve", whole, whole, false)
	prepare(t, l)
	mem.SetRoom(mem.Used())
	if _, err := l.Append(batchOf(strings.Repeat("x", whole/2-batchHeader-recordHeader))); err != nil {
		t.Fatal(err)
	}
	check("roomy", whole, whole, false)
	if _, err := l.Append(batchOf(strings.Repeat("x", whole-batchHeader-recordHeader))); err != nil {
		t.Fatal(err)
	}
	check("on its way from roomy", 0, 0, false)
	if err := l.Prepare(); !disk.IsFull(err) {
		t.Fatalf("got %v, want an error of a full disk", err)
	}
	check("full", 0, whole, false)
	if _, err := l.Append(batchOf("x")); err != nil {
		t.Fatal(err)
	}
	check("last", 0, whole-batchOf("x").Len(), true)
	if err := l.Free(2, nil); err != nil {
		t.Fatal(err)
	}
	mem.SetRoom(mem.Used() + o.Segment)
	if err := l.Prepare(); !disk.IsFull(err) {
		t.Fatalf("got %v, want an error of a full disk", err)
	}
	check("full again", whole-batchOf("x").Len()-int(o.Segment/4), whole, false)
	mem.SetRoom(-1)
	prepare(t, l)
	check("roomy again", whole, whole, false)
}

func TestFreeKeepsTheSegmentsThatItIsGiven(t *testing.T) {
	disk := memdisk.New()
	o := testOptions(disk)
	l, _ := newLog(t, o)
	var pos Pos
	for pos.Segment < 5 {
		pos = appendAll(t, l, strings.Repeat("x", 1000))
	}
	prepare(t, l)
	if err := l.Free(100, func(n uint64) bool { return n == 2 }); err != nil {
		t.Fatal(err)
	}
	if got, want := l.Segments(), []uint64{2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("segments %v, want %v", got, want)
	}
	if got := disk.Files(); len(got) != 4 || l.Stats().Bytes != 4*MinSegment { // with the reserve
		t.Errorf("files %v, %+v", got, l.Stats())
	}
	for _, name := range disk.Cut(disk.Len()).Nothing().Files() {
		if strings.HasSuffix(name, "1.seg") || strings.HasSuffix(name, "3.seg") || strings.HasSuffix(name, "4.seg") {
			t.Errorf("the removal of %s is not durable", name)
		}
	}
	if _, r := mustRestart(t, o, pos, 2, 5, 6); len(r.got) != 0 {
		t.Errorf("replayed %q", r.got)
	}
}

// A crash can happen before a removal, or undo one that was not synced.
func TestSegmentsThatCheckpointDoesNotNameAreRemovedAtStart(t *testing.T) {
	disk := memdisk.New()
	o := testOptions(disk)
	l, _ := newLog(t, o)
	var pos Pos
	for pos.Segment < 4 {
		pos = appendAll(t, l, strings.Repeat("x", 1000))
	}
	again, _ := mustRestart(t, o, pos, 2, 4)
	if got, want := again.Segments(), []uint64{2, 4}; !slices.Equal(got[:2], want) {
		t.Errorf("segments %v, want %v first", got, want)
	}
	for _, name := range disk.Files() {
		if strings.HasSuffix(name, "1.seg") || strings.HasSuffix(name, "3.seg") {
			t.Errorf("%s is still there", name)
		}
	}
}

// The writer appends while others make, count and free segments.
func TestOthersWorkWhileTheWriterAppends(t *testing.T) {
	o := testOptions(memdisk.New())
	l, from := newLog(t, o)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, work := range []func() error{
		func() error { return l.Prepare() },
		func() error { return l.Free(l.Stats().Appended/MinSegment/2, nil) },
		func() error { _ = l.NeedsPrepare(); return nil },
		func() error {
			if s := l.Segments(); !slices.IsSorted(s) {
				return fmt.Errorf("segments %v", s)
			}
			return nil
		},
	} {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := work(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var b Batch
	var last Pos
	for n := uint64(1); last.Segment < 20; n++ {
		b.Reset()
		binary.LittleEndian.PutUint64(b.Add(1, 500), n)
		pos, err := l.Append(&b)
		for errors.Is(err, ErrNoRoom) {
			prepare(t, l)
			pos, err = l.Append(&b)
		}
		if err != nil {
			t.Fatal(err)
		}
		from, last = last, pos
	}
	close(stop)
	all.Wait()
	if _, r := mustRestart(t, o, from); len(r.seqs) != 1 || r.tail.End != last {
		t.Errorf("replayed %v up to %v, want one batch up to %v", r.seqs, r.tail.End, last)
	}
}
