package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// done is a context with which Next never waits.
var done = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newReader(t testing.TB, l *Log, from Pos) *Reader {
	t.Helper()
	r, err := l.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// rest reads everything that is durable, and returns the bodies of the records.
func rest(t testing.TB, r *Reader) (bodies []string) {
	t.Helper()
	for {
		_, recs, err := r.Next(done)
		if errors.Is(err, context.Canceled) {
			return bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		for rec := range recs.All() {
			bodies = append(bodies, string(rec.Body))
		}
	}
}

// fillSegments appends batches until the log continues in that segment.
func fillSegments(t testing.TB, l *Log, segment uint64) (ends []Pos) {
	t.Helper()
	for l.Durable().Segment < segment {
		ends = append(ends, appendAll(t, l, strings.Repeat("x", 1000)))
	}
	return ends
}

// syncing is a disk that calls a function before each sync of a file.
type syncing struct {
	disk.FS
	before func()
}

type syncingFile struct {
	disk.File
	fs *syncing
}

func (s *syncing) Open(name string) (disk.File, error) {
	f, err := s.FS.Open(name)
	return syncingFile{f, s}, err
}

func (s *syncing) Create(name string) (disk.File, error) {
	f, err := s.FS.Create(name)
	return syncingFile{f, s}, err
}

func (f syncingFile) Sync() error {
	f.fs.before()
	return f.File.Sync()
}

// When a batch is about to be synced, it is written, but readers must not see it yet.
func TestReaderSeesABatchOnceItIsDurableAndNotBefore(t *testing.T) {
	fs := &syncing{FS: memdisk.New(), before: func() {}}
	l, from := newLog(t, testOptions(fs))
	r := newReader(t, l, from)
	fs.before = func() {
		if early := rest(t, r); len(early) > 0 {
			t.Errorf("%q was read before it was durable", early)
		}
	}
	for n := range 30 {
		body := fmt.Sprint(n, strings.Repeat("x", 300*(n%4)))
		appendAll(t, l, body, "second")
		if got := rest(t, r); !slices.Equal(got, []string{body, "second"}) {
			t.Fatalf("after batch %d it read %q", n, got)
		}
		if r.Pos() != l.Durable() {
			t.Fatalf("the reader is at %+v, the log at %+v", r.Pos(), l.Durable())
		}
	}
	if l.Durable().Segment < 3 {
		t.Errorf("the log goes up to %+v, wanted some segments", l.Durable())
	}
}

// Readers follow while the writer appends, rolls, and frees what they have read.
func TestReadersFollowTheWriter(t *testing.T) {
	const batches = 2000
	l, from := newLog(t, testOptions(memdisk.New()))
	result := make(chan error)
	for range 2 {
		r := newReader(t, l, from)
		go func() {
			result <- func() error {
				defer r.Close()
				for n := uint64(0); n < batches; n++ {
					_, recs, err := r.Next(context.Background())
					if err != nil {
						return fmt.Errorf("batch %d: %w", n, err)
					}
					for rec := range recs.All() {
						if got := binary.LittleEndian.Uint64(rec.Body); got != n || recs.Len() != 1 {
							return fmt.Errorf("batch %d of %d records came where %d was due", got, recs.Len(), n)
						}
					}
				}
				return nil
			}()
		}()
	}
	var b Batch
	for n := range uint64(batches) {
		b.Reset()
		binary.LittleEndian.PutUint64(b.Add(1, 8+int(n%300)), n)
		prepare(t, l)
		end, err := l.Append(&b)
		if err == nil {
			err = l.Free(end.Segment, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	if err := l.Free(l.Durable().Segment, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := l.Segments()[0], l.Durable().Segment; got != want {
		t.Errorf("with the readers gone segment %d is left, the log is at %d", got, want)
	}
}

// follower is a reader of a model's log. A restart ends it.
type follower struct{ r *Reader }

// follow continues reading, after a restart from any batch after the checkpoint, and
// compares the records with the model.
func (f *follower) follow(t *rapid.T, m *model) {
	if f.r == nil || f.r.log != m.l {
		from := rapid.SampledFrom(append(slices.Clone(m.ends), m.from, m.l.Durable())).Draw(t, "from")
		var err error
		if f.r, err = m.l.NewReader(from); err != nil {
			t.Fatalf("a reader from %+v: %v", from, err)
		}
	}
	var want, got []string
	for i, end := range m.ends {
		if end.Seq > f.r.Pos().Seq {
			want = append(want, m.all[i])
		}
	}
	for {
		seq, recs, err := f.r.Next(done)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for rec := range recs.All() {
			if seq > m.from.Seq { // the model does not know what is before
				got = append(got, fmt.Sprintf("%d:%s", rec.Type, rec.Body))
			}
		}
	}
	if !slices.Equal(got, want) || f.r.Pos() != m.l.Durable() {
		t.Fatalf("read %q up to %+v, want %q up to %+v", got, f.r.Pos(), want, m.l.Durable())
	}
	if rapid.Bool().Draw(t, "close") {
		f.r.Close()
		f.r = nil
	}
}

func TestFreeKeepsWhatIsPinnedUntilItIsReleased(t *testing.T) {
	l, _ := newLog(t, testOptions(memdisk.New()))
	fillSegments(t, l, 5)
	pin, err := l.Pin(3)
	if err != nil {
		t.Fatal(err)
	}
	later, err := l.Pin(4)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func()
		want uint64 // the first segment that is left
	}{
		{"both pins", func() {}, 3},
		{"the later one released", later.Release, 3},
		{"and again", later.Release, 3},
		{"all released", pin.Release, 5},
	} {
		step.do()
		if err := l.Free(100, nil); err != nil {
			t.Fatal(err)
		}
		if got := l.Segments()[0]; got != step.want {
			t.Errorf("%s: the first segment is %d, want %d", step.what, got, step.want)
		}
	}
	if _, err := l.Pin(3); !errors.Is(err, ErrNoPosition) {
		t.Errorf("to pin what was freed got %v, want ErrNoPosition", err)
	}
}

func TestReaderPinsOnlyWhatItHasYetToRead(t *testing.T) {
	l, from := newLog(t, testOptions(memdisk.New()))
	r := newReader(t, l, from)
	fillSegments(t, l, 4)
	for r.Pos().Segment < 3 {
		if _, _, err := r.Next(done); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Free(100, nil); err != nil {
		t.Fatal(err)
	}
	if got := l.Segments()[0]; got != 3 {
		t.Errorf("the reader is in segment 3, the first one left is %d", got)
	}
	rest(t, r)
	if r.Pos() != l.Durable() {
		t.Errorf("it read up to %+v, the log is at %+v", r.Pos(), l.Durable())
	}
}

func TestFollowerEndsWithTheLog(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(l *Log, fs *memdisk.FS, r *Reader) error // returns an error where the test fails
		want error
	}{
		{"close of the log", func(l *Log, _ *memdisk.FS, _ *Reader) error { return l.Close() }, ErrClosed},
		{"failed sync", func(l *Log, fs *memdisk.FS, _ *Reader) error {
			fs.Fail(failOnce(memdisk.Sync))
			if _, err := l.Append(batchOf("lost?")); !errors.Is(err, ErrFailed) {
				return fmt.Errorf("append got %v, want ErrFailed", err)
			}
			return nil
		}, ErrFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := memdisk.New()
			l, from := newLog(t, testOptions(fs))
			r := newReader(t, l, from)
			appendAll(t, l, "durable")
			if _, recs, err := r.Next(done); err != nil || recs.Len() != 1 {
				t.Fatalf("got %d records, %v", recs.Len(), err)
			}
			ended := make(chan error)
			go func() {
				_, _, err := r.Next(context.Background())
				ended <- err
			}()
			if err := c.end(l, fs, r); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("it ended with %v, want %v", err, c.want)
			}
		})
	}
}

// After a failure exactly what was durable before can still be read.
func TestReaderOfAFailedLogReadsUpToWhatIsDurable(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	r := newReader(t, l, from)
	appendAll(t, l, "durable")
	fs.Fail(failOnce(memdisk.Sync))
	if _, err := l.Append(batchOf("lost?")); !errors.Is(err, ErrFailed) {
		t.Fatalf("append got %v, want ErrFailed", err)
	}
	if _, recs, err := r.Next(done); err != nil || recs.Len() != 1 {
		t.Errorf("got %d records, %v", recs.Len(), err)
	}
	if _, recs, err := r.Next(done); !errors.Is(err, ErrFailed) {
		t.Errorf("got %d records, %v, want ErrFailed", recs.Len(), err)
	}
}

func TestClosedReaderReadsNothing(t *testing.T) {
	l, from := newLog(t, testOptions(memdisk.New()))
	appendAll(t, l, "a")
	r := newReader(t, l, from)
	r.Close()
	if _, _, err := r.Next(done); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestReaderIsRefusedWhereTheLogDoesNotContinue(t *testing.T) {
	l, from := newLog(t, testOptions(memdisk.New()))
	ends := fillSegments(t, l, 6)
	at := func(segment uint64) Pos {
		return ends[slices.IndexFunc(ends, func(p Pos) bool { return p.Segment == segment })]
	}
	if err := l.Free(4, func(n uint64) bool { return n == 2 }); err != nil {
		t.Fatal(err)
	}
	otherSum, otherSeq, ahead, early := at(4), at(4), l.Durable(), at(4)
	otherSum.Sum++
	otherSeq.Seq++
	ahead.Seq++
	early.Offset -= 8
	for name, pos := range map[string]Pos{
		"a segment that was freed":        from,
		"a gap after the segment":         at(2),
		"a segment that is not there yet": {Segment: 100, Offset: pageSize, Seq: 1},
		"another batch before it":         otherSum,
		"another number":                  otherSeq,
		"ahead of the log":                ahead,
		"in the midst of a batch":         early,
		"beyond the segment":              {Segment: 4, Offset: MinSegment, Seq: at(4).Seq},
		"the zero position":               {},
	} {
		if _, err := l.NewReader(pos); !errors.Is(err, ErrNoPosition) {
			t.Errorf("%s: got %v, want ErrNoPosition", name, err)
		}
	}
	if len(l.pins) != 0 {
		t.Errorf("%d pins are left", len(l.pins))
	}
	for _, good := range []Pos{at(4), l.Durable()} {
		rest(t, newReader(t, l, good))
	}
}

func TestReaderReportsDamage(t *testing.T) {
	fs := memdisk.New()
	l, from := newLog(t, testOptions(fs))
	appendAll(t, l, "a")
	second := l.Durable()
	appendAll(t, l, "b")
	r := newReader(t, l, from)
	b, err := fs.ReadFile("log/00000001.seg")
	if err != nil {
		t.Fatal(err)
	}
	b[second.Offset+batchHeader] ^= 1
	if err := fs.WriteFile("log/00000001.seg", b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(done); err != nil {
		t.Error(err)
	}
	for range 2 {
		var d *disk.Damage
		if _, _, err := r.Next(done); !errors.As(err, &d) || d.Offset != second.Offset {
			t.Errorf("got %v, want damage at %d", err, second.Offset)
		}
	}
}
