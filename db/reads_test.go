package db

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/internal/test/memdisk"
)

// However many calls ask for a value while the disk is slow, only so many read
// at a time, since each holds a thread.
func TestOnlySoManyReadsAreUnderWay(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	defer mustClose(t, d)
	k := Key{"a", "1"}
	version, err := d.Set(SetRequest{Key: k, Data: []byte("x"), Check: AnyVersion})
	wantDone(t, "a value", err)
	var under, most atomic.Int32
	begun, resume := make(chan struct{}, 2*maxReads), make(chan struct{})
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read && strings.HasSuffix(op.Name, ".seg") {
			n := under.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			begun <- struct{}{}
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
	const asked = 2 * maxReads
	done := make(chan error, asked)
	for i := range asked {
		go func() { done <- calls[i%len(calls)]() }()
	}
	for range maxReads {
		<-begun
	}
	close(resume)
	for range asked {
		wantDone(t, "a call", <-done)
	}
	if n := most.Load(); n > maxReads {
		t.Errorf("%d reads were under way at once, want at most %d", n, maxReads)
	}
}

func ignore(err, other error) error {
	if errors.Is(err, other) {
		return nil
	}
	return err
}

// A read that waits for others for too long is refused, and one whose client
// hangs up stops to wait. Nobody else's place is lost by that.
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

// A caller that has no memory for a value learns how large it is, without that
// any of it is read.
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
