package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

var testID = [16]byte([]byte("the directory ID"))

// testOptions returns options for a log with the smallest segments.
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

// restart opens a log and takes it through recovery, so that it can be appended to.
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

// mustRestart is restart for a log that must be good. The log is closed when the test ends.
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

// newLog creates and starts a log.
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

func TestReplayBeginsAtTheCheckpoint(t *testing.T) {
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

func TestRecordSaysWhereItIs(t *testing.T) {
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
		t.Errorf("at that place is %q, want %q", got, "two")
	}
}

// Successive large values share a buffer, which is dropped when no more follow.
func TestLargeBufferIsKeptForAWhile(t *testing.T) {
	var b Batch
	b.Add(1, keepBuffer)
	for i := range 3 * keepBatches {
		b.Reset()
		if cap(b.buf) <= keepBuffer {
			t.Fatal("a buffer that is used again and again was dropped")
		}
		if i%2 == 0 {
			b.Add(1, keepBuffer)
		}
	}
	for range keepBatches + 1 {
		b.Reset()
		b.Add(1, 10)
	}
	if b.Reset(); cap(b.buf) > keepBuffer {
		t.Errorf("a buffer of %d bytes is kept", cap(b.buf))
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

func TestCreateRefusesALogInUse(t *testing.T) {
	o := testOptions(memdisk.New())
	// A log that was never written to looks like what an interrupted Create leaves.
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
