package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

func TestPrepareMakesASmallerSegmentOnANearlyFullDisk(t *testing.T) {
	const full = 2 << 20
	for _, tc := range []struct{ room, want int64 }{
		{full, full}, {full - 1, full / 2}, {full / 2, full / 2}, {full/2 - 1, full / 4}, {full / 8, full / 8},
	} {
		t.Run(fmt.Sprint(tc.room), func(t *testing.T) {
			disk := memdisk.New()
			o := testOptions(disk)
			o.Segment = full
			l, from := newLog(t, o)
			disk.SetRoom(disk.Used() + tc.room)
			prepare(t, l)
			if st := l.Stats(); st.Segments != 2 || st.Bytes != full+tc.want {
				t.Fatalf("%+v, want a second segment of %d bytes", st, tc.want)
			}
			// The log goes on in it, and finds it again.
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

func TestPrepareOnAFullDiskLeavesNothingBehind(t *testing.T) {
	mem := memdisk.New()
	o := testOptions(mem)
	o.Segment = 1 << 20
	l, from := newLog(t, o)
	used := mem.Used()
	mem.SetRoom(used + leastSegment - 1)
	for range 2 {
		if err := l.Prepare(); !disk.IsFull(err) {
			t.Fatalf("got %v, want an error of a full disk", err)
		}
	}
	if files := mem.Files(); len(files) != 1 || mem.Used() != used {
		t.Errorf("left %v with %d bytes, want one of %d", files, mem.Used(), used)
	}
	if !l.NeedsPrepare() {
		t.Error("does not want a segment any more")
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

func TestFreeKeepsWhatItIsTold(t *testing.T) {
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
	if got := disk.Files(); len(got) != 3 || l.Stats().Bytes != 3*MinSegment {
		t.Errorf("files %v, %+v", got, l.Stats())
	}
	if disk.Cut(disk.Len()).Unsynced() {
		t.Error("the removal is not durable")
	}
	if _, r := mustRestart(t, o, pos, 2, 5, 6); len(r.got) != 0 {
		t.Errorf("replayed %q", r.got)
	}
}

// A crash can undo a removal that was not synced, or come before it.
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

func TestASmallSegmentGrowsOnceThereIsRoom(t *testing.T) {
	const full = 512 << 10
	mem := memdisk.New()
	o := testOptions(mem)
	o.Segment = full
	l, from := newLog(t, o)
	mem.SetRoom(mem.Used() + full/2)
	prepare(t, l)
	used := mem.Used()
	for range 2 {
		if !l.Withdraw() || !l.NeedsPrepare() {
			t.Fatal("a small segment is not withdrawn")
		}
		if err := l.Prepare(); !disk.IsFull(err) || l.NeedsPrepare() || mem.Used() != used {
			t.Fatalf("on a full disk: %v, %d bytes, want %d", err, mem.Used(), used)
		}
	}
	appendAll(t, l, "one")
	mem.SetRoom(-1)
	l.Withdraw()
	began := mem.Len()
	prepare(t, l)
	if st := l.Stats(); st.Segments != 2 || st.Bytes != 2*full || l.Withdraw() {
		t.Fatalf("%+v, want two whole segments", st)
	}
	want := []string{"one", strings.Repeat("a", full-pageSize-300), strings.Repeat("b", full-pageSize-300)}
	acked := []int{0, 0, 0} // how long the journal was when each was durable
	for i, body := range want[1:] {
		if i == 1 {
			prepare(t, l)
		}
		if _, err := l.Append(batchOf(body)); err != nil {
			t.Fatal(err)
		}
		acked[i+1] = mem.Len()
	}
	for at := began; at <= mem.Len(); at++ {
		for seed := range uint64(8) {
			o.FS = mem.Crash(at, rand.New(rand.NewPCG(uint64(at), seed)))
			again, r, err := restart(o, from, []uint64{1})
			if err != nil {
				t.Fatalf("cut at %d: %v", at, err)
			}
			for i, body := range want {
				if acked[i] <= at && (i >= len(r.got) || r.got[i] != "1:"+body) {
					t.Fatalf("cut at %d: %d records, without number %d", at, len(r.got), i)
				}
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAFailureWhileASegmentGrowsIsNoFullDisk(t *testing.T) {
	for _, kind := range []memdisk.Kind{memdisk.Truncate, memdisk.Sync, memdisk.Write} {
		mem := memdisk.New()
		o := testOptions(mem)
		o.Segment = 512 << 10
		l, _ := newLog(t, o)
		mem.SetRoom(mem.Used() + o.Segment/2)
		prepare(t, l)
		if kind != memdisk.Truncate {
			mem.SetRoom(-1)
		}
		mem.Fail(func(op memdisk.Op) error {
			if op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		l.Withdraw()
		if err := l.Prepare(); err == nil || disk.IsFull(err) {
			t.Errorf("a failed %v: %v", kind, err)
		}
		mem.Fail(nil)
	}
}
