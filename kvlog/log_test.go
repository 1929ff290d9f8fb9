package kvlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/disk/memdisk"
)

var testID = [16]byte([]byte("the directory ID"))

// testOptions is a log of the smallest segments on a disk in memory.
func testOptions(fs disk.FS) Options {
	return Options{FS: fs, Dir: "log", ID: testID, Segment: MinSegment}
}

// recovered is what a start found.
type recovered struct {
	tail Tail
	seqs []uint64
	got  []string // "TYPE:BODY", one for each record
}

func (r *recovered) take(seq uint64, recs Records) error {
	r.seqs = append(r.seqs, seq)
	for rec := range recs.All() {
		r.got = append(r.got, fmt.Sprintf("%d:%s", rec.Type, rec.Body))
	}
	return nil
}

// restart opens a log and brings it to where it can be appended to.
func restart(o Options, from Pos, segments []uint64) (*Log, *recovered, error) {
	l, err := Open(o, from, segments)
	if err != nil {
		return nil, nil, err
	}
	r := new(recovered)
	if r.tail, err = l.Replay(r.take); err == nil {
		err = l.Repair(r.tail)
	}
	if err == nil {
		err = l.Start(r.tail)
	}
	if err != nil {
		return nil, r, errors.Join(err, l.Close())
	}
	return l, r, nil
}

// mustRestart is restart for a log that must be good; it is closed with the test.
func mustRestart(t testing.TB, o Options, from Pos, segments ...uint64) (*Log, *recovered) {
	t.Helper()
	l, r, err := restart(o, from, segments)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, r
}

// newLog makes a log.
func newLog(t testing.TB, o Options) (*Log, Pos) {
	t.Helper()
	from, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	l, _ := mustRestart(t, o, from, from.Segment)
	return l, from
}

// batchOf returns a batch with these bodies, all of type 1.
func batchOf(bodies ...string) *Batch {
	b := new(Batch)
	for _, body := range bodies {
		b.AddBytes(1, []byte(body))
	}
	return b
}

// appendAll appends a batch, and makes a segment first if there is none ready.
func appendAll(t testing.TB, l *Log, bodies ...string) Pos {
	t.Helper()
	prepare(t, l)
	pos, err := l.Append(batchOf(bodies...))
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func prepare(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
}

func wantRecords(t testing.TB, r *recovered, want ...string) {
	t.Helper()
	for i := range want {
		want[i] = "1:" + want[i]
	}
	if !slices.Equal(r.got, want) {
		t.Fatalf("recovered %q, want %q", r.got, want)
	}
}

func TestWhatWasAppendedIsReplayedInOrder(t *testing.T) {
	o := Options{FS: disk.OS{}, Dir: filepath.Join(t.TempDir(), "log"), ID: testID, Segment: MinSegment}
	l, from := newLog(t, o)
	var want []string
	end := from
	for i := range 60 {
		var bodies []string
		for j := range i%7 + 1 {
			bodies = append(bodies, strings.Repeat("x", (i*j)%50)+fmt.Sprint(i, j))
		}
		end = appendAll(t, l, bodies...)
		want = append(want, bodies...)
	}
	if end.Segment < 3 {
		t.Fatalf("log ends in segment %d: the test needs a roll or two", end.Segment)
	}
	_, r := mustRestart(t, o, from, 1)
	wantRecords(t, r, want...)
	if r.tail.End != end || r.tail.Torn != "" || r.tail.Garbage != (Range{}) {
		t.Errorf("tail %+v, want its end at %+v and nothing torn", r.tail, end)
	}
	if !slices.IsSorted(r.seqs) {
		t.Errorf("sequence numbers %v are not in order", r.seqs)
	}
}

func TestReplayBeginsWhereItIsTold(t *testing.T) {
	o := testOptions(memdisk.New())
	l, from := newLog(t, o)
	for i := range 10 {
		from = appendAll(t, l, fmt.Sprintf("old %d", i))
	}
	appendAll(t, l, "new")
	_, r := mustRestart(t, o, from, 1)
	wantRecords(t, r, "new")
	if r.seqs[0] != from.Seq+1 {
		t.Errorf("first batch is %d, want %d", r.seqs[0], from.Seq+1)
	}
}

func TestReplayReturnsTheErrorOfItsCaller(t *testing.T) {
	o := testOptions(memdisk.New())
	l, from := newLog(t, o)
	appendAll(t, l, "a")
	again, err := Open(o, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	mine := errors.New("mine")
	if _, err := again.Replay(func(uint64, Records) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v, want the caller's error", err)
	}
}

func TestRecordSaysWhereItStands(t *testing.T) {
	o := testOptions(memdisk.New())
	l, from := newLog(t, o)
	appendAll(t, l, "before")
	b := batchOf("one")
	place := int64(b.Len())
	b.AddBytes(7, []byte("two"))
	end, err := l.Append(b)
	if err != nil {
		t.Fatal(err)
	}
	want := end.Offset - int64(b.Len()) + place
	again, err := Open(o, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	_, err = again.Replay(func(_ uint64, recs Records) error {
		for r := range recs.All() {
			if r.Type == 7 && (r.Offset != want || recs.Segment != end.Segment || recs.Len() != 2) {
				t.Errorf("record at %d of segment %d, one of %d; want it at %d of %d, one of 2", r.Offset, recs.Segment, recs.Len(), want, end.Segment)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	file, err := o.FS.(*memdisk.FS).ReadFile("log/00000001.seg")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(file[want+recordHeader:][:3]); got != "two" {
		t.Errorf("at that place stands %q, want %q", got, "two")
	}
}

func TestEachBatchIsOneWriteAndOneSync(t *testing.T) {
	disk := memdisk.New()
	l, _ := newLog(t, testOptions(disk))
	prepare(t, l)
	before := disk.Len()
	for range 3 {
		if _, err := l.Append(batchOf("a", "b", "c")); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, op := range disk.Journal()[before:] {
		got = append(got, op.Kind.String())
	}
	if want := []string{"write", "sync", "write", "sync", "write", "sync"}; !slices.Equal(got, want) {
		t.Errorf("three batches took %v, want %v", got, want)
	}
}

// At a roll the seal is durable before anything is written behind it.
func TestSealIsDurableBeforeTheNextSegmentIsWritten(t *testing.T) {
	disk := memdisk.New()
	l, _ := newLog(t, testOptions(disk))
	prepare(t, l)
	full := batchOf(strings.Repeat("x", l.Room(true)-batchHeader-recordHeader))
	if _, err := l.Append(full); err != nil {
		t.Fatal(err)
	}
	before := disk.Len()
	if _, err := l.Append(batchOf("next")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range disk.Journal()[before:] {
		got = append(got, op.Kind.String()+" "+op.Name)
	}
	one, two := "log/00000001.seg", "log/00000002.seg"
	if want := []string{"write " + one, "sync " + one, "write " + two, "sync " + two}; !slices.Equal(got, want) {
		t.Errorf("a roll did %q, want %q", got, want)
	}
}

func TestRoomIsExact(t *testing.T) {
	for _, ready := range []bool{false, true} {
		for _, reserve := range []bool{false, true} {
			t.Run(fmt.Sprintf("ready=%v reserve=%v", ready, reserve), func(t *testing.T) {
				l, _ := newLog(t, testOptions(memdisk.New()))
				if ready {
					prepare(t, l)
				}
				room := l.Room(reserve)
				if room%8 != 0 || room == 0 {
					t.Fatalf("room for %d bytes", room)
				}
				if reserve {
					_, err := l.Append(batchOf(strings.Repeat("x", room-batchHeader-recordHeader+1)))
					if !errors.Is(err, ErrNoRoom) {
						t.Errorf("a batch that is larger than the room: %v, want ErrNoRoom", err)
					}
				}
				if _, err := l.Append(batchOf(strings.Repeat("x", room-batchHeader-recordHeader))); err != nil {
					t.Errorf("a batch that takes all the room: %v", err)
				}
			})
		}
	}
}

func TestRoomForDeletesIsHeldBack(t *testing.T) {
	o := testOptions(memdisk.New())
	o.Segment = 64 << 10
	l, _ := newLog(t, o)
	held := int(o.Segment / 4)
	if got := l.Room(true) - l.Room(false); got != held {
		t.Errorf("%d bytes are held back in the last segment, want %d", got, held)
	}
	prepare(t, l)
	if l.Room(true) != l.Room(false) {
		t.Errorf("with a segment ready %d and %d bytes, want all of this one for everybody", l.Room(true), l.Room(false))
	}
	// A write fills this segment: into the next one go at most three quarters.
	if _, err := l.Append(batchOf(strings.Repeat("x", l.Room(false)-batchHeader-recordHeader))); err != nil {
		t.Fatal(err)
	}
	if got := l.Room(true) - l.Room(false); got != held {
		t.Errorf("%d bytes are held back in the next segment, want %d", got, held)
	}
	if s := (segment{size: 64 << 20}); s.reserve() != 1<<20 {
		t.Errorf("of a large segment %d bytes are held back, want 1 MiB", s.reserve())
	}
}

func TestBatchThatDoesNotFitChangesNothing(t *testing.T) {
	disk := memdisk.New()
	o := testOptions(disk)
	l, from := newLog(t, o)
	appendAll(t, l, "before")
	at := disk.Len()
	for range 2 {
		if _, err := l.Append(batchOf(strings.Repeat("x", MinSegment))); !errors.Is(err, ErrNoRoom) {
			t.Errorf("got %v, want ErrNoRoom", err)
		}
	}
	if disk.Len() != at {
		t.Errorf("%v was done", disk.Journal()[at:])
	}
	appendAll(t, l, "after")
	_, r := mustRestart(t, o, from, 1)
	wantRecords(t, r, "before", "after")
}

func TestEmptyBatchIsNothing(t *testing.T) {
	disk := memdisk.New()
	l, from := newLog(t, testOptions(disk))
	at := disk.Len()
	if pos, err := l.Append(new(Batch)); err != nil || pos != from || disk.Len() != at {
		t.Errorf("got %v, %v and %d calls, want %v and none", pos, err, disk.Len()-at, from)
	}
}

func TestRecordsOutOfRangeAreRefused(t *testing.T) {
	for name, add := range map[string]func(b *Batch){
		"type 0":        func(b *Batch) { b.Add(0, 1) },
		"type of seals": func(b *Batch) { b.Add(typeSeal, sealBody) },
		"negative":      func(b *Batch) { b.Add(1, -1) },
		"too large":     func(b *Batch) { b.Add(1, MaxSegment+1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("was taken")
				}
			}()
			add(new(Batch))
		})
	}
}

func TestBatchIsZeroedWhenReused(t *testing.T) {
	b := batchOf(strings.Repeat("x", 100))
	b.Reset()
	if b.Len() != batchHeader || b.Records() != 0 {
		t.Errorf("%d records and %d bytes after Reset", b.Records(), b.Len())
	}
	if body := b.Add(1, 21); !bytes.Equal(body, make([]byte, 21)) || b.Len() != batchHeader+RecordSize(21) {
		t.Errorf("body %q, batch of %d bytes", body, b.Len())
	}
	b.Add(1, keepBuffer)
	b.Reset()
	if cap(b.buf) > keepBuffer {
		t.Errorf("a buffer of %d bytes is kept", cap(b.buf))
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	o := Options{FS: disk.OS{}, Dir: filepath.Join(t.TempDir(), "log"), ID: testID, Segment: 1 << 20}
	l, _ := newLog(t, o)
	prepare(t, l)
	var b Batch
	body := make([]byte, 72)
	n := testing.AllocsPerRun(50, func() {
		b.Reset()
		for range 64 {
			b.AddBytes(1, body)
		}
		if l.Room(false) < b.Len() {
			t.Fatal("no room")
		}
		if _, err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each batch", n)
	}
}

func TestFailedWriteIsFinal(t *testing.T) {
	for _, kind := range []memdisk.Kind{memdisk.Write, memdisk.Sync} {
		t.Run(kind.String(), func(t *testing.T) {
			disk := memdisk.New()
			o := testOptions(disk)
			l, from := newLog(t, o)
			appendAll(t, l, "good")
			disk.Fail(failOnce(kind))
			_, first := l.Append(batchOf("lost?"))
			if !errors.Is(first, ErrFailed) || !errors.Is(first, syscall.EIO) {
				t.Fatalf("got %v, want ErrFailed with the cause", first)
			}
			at := disk.Len()
			if _, err := l.Append(batchOf("more")); err != first {
				t.Errorf("the next batch got %v, want the same error", err)
			}
			if err := l.Prepare(); !errors.Is(err, ErrFailed) {
				t.Errorf("Prepare got %v, want ErrFailed", err)
			}
			if l.NeedsPrepare() {
				t.Error("a failed log wants a segment")
			}
			if disk.Len() != at {
				t.Errorf("after the failure it did %v", disk.Journal()[at:])
			}
			_, r := mustRestart(t, testOptions(disk.Reopen()), from, 1)
			if !slices.Contains(r.got, "1:good") || slices.Contains(r.got, "1:more") {
				t.Errorf("recovered %q", r.got)
			}
		})
	}
}

// failOnce fails the next call of a kind.
func failOnce(kind memdisk.Kind) func(memdisk.Op) error {
	var once sync.Once
	return func(op memdisk.Op) (err error) {
		if op.Kind == kind {
			once.Do(func() { err = syscall.EIO })
		}
		return err
	}
}

func TestNothingIsWrittenBeforeStartOrAfterClose(t *testing.T) {
	disk := memdisk.New()
	o := testOptions(disk)
	from, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	at := disk.Len()
	l, err := Open(o, from, []uint64{1})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		if _, err := l.Append(batchOf("x")); err == nil {
			t.Errorf("%s: appended", when)
		}
		if err := l.Prepare(); err == nil {
			t.Errorf("%s: made a segment", when)
		}
		if err := l.Free(9, nil); err == nil {
			t.Errorf("%s: freed segments", when)
		}
		if disk.Len() != at {
			t.Errorf("%s: did %v", when, disk.Journal()[at:])
		}
	}
	refused("before Start")
	if err := l.Start(Tail{End: from}); err == nil {
		t.Error("started before Replay")
	}
	if err := l.Repair(Tail{End: from}); err == nil {
		t.Error("repaired before Replay")
	}
	if _, err := l.Replay(new(recovered).take); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(Tail{End: from}); err == nil {
		t.Error("started before Repair")
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	refused("after Close")
	if _, err := l.Append(batchOf("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("append after Close: %v, want ErrClosed", err)
	}
	if n := disk.OpenHandles(); n != 0 {
		t.Errorf("%d files are still open", n)
	}
}

func TestPrepareMakesASmallerSegmentOnANearlyFullDisk(t *testing.T) {
	const full = 4 << 20
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

func TestCreateRefusesALogInUse(t *testing.T) {
	o := testOptions(memdisk.New())
	// Never written to: that is also what a Create that was cut off leaves.
	if _, err := Create(o); err != nil {
		t.Fatal(err)
	}
	l, from := newLog(t, o)
	appendAll(t, l, "precious")
	if _, err := Create(o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	_, r := mustRestart(t, o, from, 1)
	wantRecords(t, r, "precious")
}

func TestImpossibleSegmentSizeIsRefused(t *testing.T) {
	for _, size := range []int64{-1, 1, pageSize, MinSegment + 1, MaxSegment + pageSize} {
		o := testOptions(memdisk.New())
		o.Segment = size
		if _, err := Create(o); err == nil {
			t.Errorf("Create took segments of %d bytes", size)
		}
		if _, err := Open(o, Pos{Segment: 1, Offset: pageSize}, nil); err == nil {
			t.Errorf("Open took segments of %d bytes", size)
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
