package wal

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

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

// At a roll the seal is durable before anything is written after it.
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

func TestBatchBeginsTheNextSegment(t *testing.T) {
	l, _ := newLog(t, testOptions(memdisk.New()))
	prepare(t, l)
	b := batchOf("second")
	b.BeginSegment()
	for i, want := range []uint64{2, 2} { // there is a next segment at first, then there is none
		pos, err := l.Append(b)
		if err != nil || pos.Segment != want {
			t.Fatalf("append %d ended in segment %d: %v; want segment %d", i, pos.Segment, err, want)
		}
	}
	prepare(t, l)
	b.Reset()
	b.AddBytes(1, []byte("stays"))
	if pos, err := l.Append(b); err != nil || pos.Segment != 2 {
		t.Errorf("after Reset a batch ended in segment %d: %v; want segment 2", pos.Segment, err)
	}
	before := b.Mark()
	b.BeginSegment()
	b.Undo(before)
	if pos, err := l.Append(b); err != nil || pos.Segment != 2 {
		t.Errorf("after Undo a batch ended in segment %d: %v; want segment 2", pos.Segment, err)
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

func TestEmptyBatchWritesNothing(t *testing.T) {
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
				t.Error("a failed log asks for a segment")
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
