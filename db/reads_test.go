package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/internal/test/memdisk"
)

// However many calls ask for a value while the disk is slow, only a limited number read at a
// time, since each holds a thread.
func TestOnlySoManyReadsAreUnderWay(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Files = 8
	d := mustOpen(t, o)
	defer mustClose(t, d)
	k := Key{"a", "1"}
	version, err := d.Set(SetRequest{Key: k, Data: []byte("x"), Check: AnyVersion})
	wantDone(t, "a value", err)
	var under, most, asking atomic.Int32
	resume := make(chan struct{})
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read && strings.HasSuffix(op.Name, ".seg") {
			n := under.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-resume
			under.Add(-1)
		}
		return nil
	})
	calls := []func() error{
		func() error { _, err := d.Get(k); return err },
		func() error { _, err := d.Head(context.Background(), k); return err },
		func() error {
			_, err := d.Set(SetRequest{Key: k, Data: []byte("y"), Check: version + 1})
			var conflict *ConflictError
			if errors.As(err, &conflict) {
				err = nil
			}
			return err
		},
		func() error { _, err := d.Get(Key{"a", "none"}); return ignore(err, ErrNotFound) },
	}
	const asked = 64
	done := make(chan error, asked)
	for i := range asked {
		go func() {
			asking.Add(1)
			done <- calls[i%len(calls)]()
		}()
	}
	// All calls ask, and those that may read do so. The others get time to try.
	for n := 0; n < 1000 || int(asking.Load()) < asked || int(under.Load()) < o.Files; n++ {
		runtime.Gosched()
	}
	close(resume)
	for range asked {
		wantDone(t, "a call", <-done)
	}
	if n := most.Load(); int(n) > o.Files {
		t.Errorf("%d reads were under way at once, want at most %d", n, o.Files)
	}
}

func ignore(err, other error) error {
	if errors.Is(err, other) {
		return nil
	}
	return err
}

// A read that waits too long for others is refused, and one whose client hangs up stops
// waiting. Neither takes a place from other reads.
func TestAReadDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := make(reads, 1)
		wantDone(t, "the first", r.begin(t.Context()))
		began := time.Now()
		if err := r.begin(t.Context()); err != ErrReads || time.Since(began) != readPatience {
			t.Errorf("got %v after %v, want ErrReads after %v", err, time.Since(began), readPatience)
		}
		ctx, hangUp := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- r.begin(ctx) }()
		synctest.Wait()
		hangUp()
		if err := <-left; err != context.Canceled {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		r.end()
		wantDone(t, "the next", r.begin(t.Context()))
	})
}

// A caller without memory for a value learns its size, and none of the value is read.
func TestALargeValueIsNotReadWithoutMemoryForIt(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Segment = 64 << 10
	d := mustOpen(t, o)
	defer mustClose(t, d)
	k, data := Key{"a", "1"}, []byte(strings.Repeat("x", 20_000))
	version, err := d.Set(SetRequest{Key: k, Data: data, Type: "a/b", Check: AnyVersion})
	wantDone(t, "a value", err)
	var read atomic.Int64
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read {
			read.Add(int64(op.Len))
		}
		return nil
	})
	for name, get := range map[string]func() (Value, error){
		"a head":       func() (Value, error) { return d.Head(t.Context(), k) },
		"a short read": func() (Value, error) { return d.Read(t.Context(), k, len(data)-1) },
	} {
		v, err := get()
		wantDone(t, name, err)
		if v.Data != nil || v.Size != len(data) || v.Type != "a/b" || v.Version != version {
			t.Errorf("%s: %d bytes of %d, type %q, version %d", name, len(v.Data), v.Size, v.Type, v.Version)
		}
	}
	if n := read.Load(); n == 0 || n > 4<<10 {
		t.Errorf("%d bytes were read for two heads", n)
	}
	v, err := d.Read(t.Context(), k, len(data))
	wantDone(t, "a read", err)
	if string(v.Data) != string(data) || v.Size != len(data) {
		t.Errorf("%d bytes of %d, want all %d", len(v.Data), v.Size, len(data))
	}
}

// If the process has no file descriptor left, a call that needs one is refused and changes
// nothing. The disk counts as neither full nor failed, and no value as damaged.
func TestNoDescriptorIsARefusal(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	log := lines(&o)
	d := mustOpen(t, o)
	set := func(i int) error {
		_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(i)}, Data: make([]byte, 2000), Check: AnyVersion})
		return err
	}
	const keys = 100
	for i := range keys {
		wantDone(t, "a value", set(i))
	}
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Open || op.Kind == memdisk.Create || op.Kind == memdisk.SyncDir {
			return &os.PathError{Op: "open", Path: op.Name, Err: syscall.EMFILE}
		}
		return nil
	})
	refused := map[string]int{}
	for i := range keys {
		k := Key{"a", fmt.Sprint(i)}
		_, err := d.Get(k)
		for what, err := range map[string]error{
			"a read": err, "a write": set(keys + i), "a check": d.DeleteValue(k, 1), "a delete": d.DeleteValue(Key{"a", fmt.Sprint(i, "-")}, AnyVersion),
		} {
			var conflict *ConflictError
			if errors.Is(err, ErrDescriptors) {
				refused[what]++
			} else if err != nil && !errors.As(err, &conflict) && !errors.Is(err, ErrNotFound) {
				t.Fatalf("%s: %v, want it done or ErrDescriptors", what, err)
			}
		}
	}
	if refused["a read"] == 0 || refused["a write"] == 0 || refused["a check"] == 0 {
		t.Errorf("refused were %v: the test does nothing", refused)
	}
	if err := d.store.Checkpoint(); err != nil {
		t.Errorf("a checkpoint: %v", err)
	}
	d.store.Compact()
	fs.Fail(nil)
	for i := range keys {
		_, err := d.Get(Key{"a", fmt.Sprint(i)})
		if i > 0 || !errors.Is(err, ErrNotFound) { // the first had version 1
			wantDone(t, "a read, with descriptors again", err)
		}
		wantDone(t, "a write, with descriptors again", set(i))
	}
	mustClose(t, d) // also so that nobody writes to the log any more
	if s := d.Stats(); s.Stopped || s.Values.Damaged > 0 || strings.Contains(log.String(), "damaged") || strings.Contains(log.String(), "disk full") {
		t.Errorf("stopped: %v, %d damaged; the log says:\n%s", s.Stopped, s.Values.Damaged, log.String())
	}
}
