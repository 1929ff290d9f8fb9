package wal

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// manySegments returns a log with a number of segments before the active one.
func manySegments(t *testing.T, fs *memdisk.FS, segments int) *Log {
	t.Helper()
	o := Options{FS: fs, Dir: "log", ID: testID, Segment: MinSegment, Files: 3}
	l := openNew(t, o)
	var b Batch
	for range segments {
		if err := l.Prepare(); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		copy(b.Add(1, MinSegment/4), strings.Repeat("x", MinSegment/4))
		if _, err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.Segments()); n < segments {
		t.Fatalf("the log has %d segments, want %d", n, segments)
	}
	return l
}

func openNew(t *testing.T, o Options) *Log {
	t.Helper()
	first, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(o, first, []uint64{1})
	if err != nil {
		t.Fatal(err)
	}
	start(t, l)
	return l
}

func start(t *testing.T, l *Log) {
	t.Helper()
	tail, err := l.Replay(func(uint64, Records) error { return nil })
	if err == nil {
		err = l.Repair(tail)
	}
	if err == nil {
		err = l.Start(tail)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// However many segments there are, few files are open. Many readers can read every segment
// at once, even while others are freed.
func TestFewFilesAreOpen(t *testing.T) {
	fs := memdisk.New()
	l := manySegments(t, fs, 60)
	const most = 3 + 2 // including the two that are written to
	few := func(when string, more int) {
		t.Helper()
		if n := fs.OpenHandles(); n > most+more {
			t.Errorf("%s: %d files are open, want at most %d", when, n, most+more)
		}
	}
	few("after the writes", 0)
	const readers = 4
	freed := uint64(20)
	var clients sync.WaitGroup
	for i := range readers {
		clients.Go(func() {
			for round := range 300 {
				number := uint64(1 + (round*7+i)%60)
				s := l.Segment(number)
				if s == nil && number < freed {
					continue
				}
				var page [pageSize]byte
				_, err := s.ReadAt(page[:], 0)
				if err != nil && (number >= freed || !errors.Is(err, os.ErrClosed) && !errors.Is(err, os.ErrNotExist)) {
					t.Errorf("segment %d: %v", number, err)
				}
				few("amid reads", readers)
			}
		})
	}
	if err := l.Free(freed, nil); err != nil {
		t.Error(err)
	}
	clients.Wait()

	end, numbers, o := l.end, l.Segments(), l.o
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := fs.OpenHandles(); n > 0 {
		t.Errorf("%d files are open after Close", n)
	}
	l, err := Open(o, end, numbers)
	if err != nil {
		t.Fatal(err)
	}
	few("after the start", 0)
	start(t, l)
	few("after the recovery", 0)
	var b Batch
	copy(b.Add(1, 8), "goes on!")
	if _, err := l.Append(&b); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the process has no descriptor left, calls that need one fail and change nothing, and
// files that are open keep working.
func TestNoDescriptorIsARefusal(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE} {
		fs := memdisk.New()
		l := manySegments(t, fs, 20)
		segments := l.Segments()
		fs.Fail(func(op memdisk.Op) error {
			if op.Kind == memdisk.Open || op.Kind == memdisk.Create || op.Kind == memdisk.SyncDir {
				return &os.PathError{Op: "open", Path: op.Name, Err: errno}
			}
			return nil
		})
		refused, read := 0, 0
		for _, number := range segments {
			var page [pageSize]byte
			_, err := l.Segment(number).ReadAt(page[:], 0)
			switch {
			case err == nil:
				read++
			case disk.IsNoDescriptor(err):
				refused++
			default:
				t.Errorf("segment %d: %v", number, err)
			}
		}
		if refused == 0 || read == 0 {
			t.Errorf("%d segments are refused, %d read", refused, read)
		}
		for range 2 {
			if err := l.Prepare(); !disk.IsNoDescriptor(err) {
				t.Errorf("a new segment: %v", err)
			}
		}
		if err := l.Free(segments[5], nil); err != nil {
			t.Errorf("removing segments: %v", err)
		}
		var b Batch
		copy(b.Add(1, 8), "goes on!")
		if _, err := l.Append(&b); err != nil {
			t.Errorf("a batch: %v", err)
		}
		fs.Fail(nil)
		if err := l.Prepare(); err != nil {
			t.Error(err)
		}
		for _, number := range l.Segments() {
			var page [pageSize]byte
			if _, err := l.Segment(number).ReadAt(page[:], 0); err != nil {
				t.Errorf("segment %d: %v", number, err)
			}
		}
		if got, want := fmt.Sprint(l.Segments()), fmt.Sprint(append(segments[5:len(segments):len(segments)], segments[len(segments)-1]+1)); got != want {
			t.Errorf("the segments are %v, want %v", got, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A file that is written to stays open, however many others are read, because a failed
// write-back is reported only to descriptors that were open.
func TestSegmentBeingWrittenStaysOpen(t *testing.T) {
	fs := memdisk.New()
	l := manySegments(t, fs, 20)
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	end, numbers, o := l.end, l.Segments(), l.o
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(o, end, numbers)
	if err != nil {
		t.Fatal(err)
	}
	start(t, l)
	closed := map[string]bool{}
	var mu sync.Mutex // guards closed
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Close {
			mu.Lock()
			defer mu.Unlock()
			closed[op.Name] = true
		}
		return nil
	})
	for range 3 {
		for _, number := range l.Segments() {
			var page [pageSize]byte
			if _, err := l.Segment(number).ReadAt(page[:], 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if closed[l.active.path] || closed[l.next.path] || len(closed) < 10 {
		t.Errorf("%d files were closed, among them one that is written to: %v %v", len(closed), closed[l.active.path], closed[l.next.path])
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
