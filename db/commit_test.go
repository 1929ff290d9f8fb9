package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
	"clouddragon/slots"
)

// used counts the slots in use.
func used(st slots.Stats) (n uint64) {
	for _, c := range st.Classes {
		n += c.Used
	}
	return n
}

// awaitPrepared waits for the next segment and the reserve of the log, which are made in
// the background.
func awaitPrepared(d *DB) {
	for d.store.Log.NeedsPrepare() {
		runtime.Gosched()
	}
}

// awaitAsked waits until n operations wait for the writer.
func awaitAsked(d *DB, n int) {
	for d.Stats().Queue < n {
		runtime.Gosched()
	}
}

// refuses reports whether Close has begun to refuse new calls.
func refuses(d *DB) bool {
	return d.writer.Closed()
}

// A refusal that depends on an earlier operation of the same batch is no more certain than the
// batch.
func TestRefusalWaitsForWhatItRestsOn(t *testing.T) {
	for _, fails := range []bool{false, true} {
		fs := memdisk.New()
		d := mustOpen(t, tiny(fs, newTestClock()))
		k := Key{"a", "limited"}
		add := func() chan error {
			answer := make(chan error, 1)
			go func() {
				_, err := d.AddCounter(k, 10, 0, 10)
				answer <- err
			}()
			return answer
		}
		// Behind a first commit both wait for the same batch.
		g := fs.NewBarrier()
		first := make(chan error, 1)
		go func() { first <- addN(d, "first", 1) }()
		<-g.Reached
		one := add()
		awaitAsked(d, 1)
		two := add()
		awaitAsked(d, 2)
		next := fs.NewBarrier()
		g.Open()
		wantDone(t, "the first", <-first)
		<-next.Reached
		if _, err := d.Counter(k); !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not durable can be read: %v", err)
		}
		select {
		case err := <-one:
			t.Errorf("answered before it was durable: %v", err)
		case err := <-two:
			t.Errorf("refused before it was durable: %v", err)
		default:
		}
		if fails {
			next.Pass <- syscall.EIO
			if a, b := <-one, <-two; !errors.Is(a, ErrUnknown) || !errors.Is(b, ErrUnknown) {
				t.Errorf("%v and %v, want ErrUnknown twice", a, b)
			}
			<-d.Failed()
			if err := d.Close(); !errors.Is(err, ErrStopped) {
				t.Errorf("close: %v", err)
			}
			continue
		}
		next.Open()
		wantDone(t, "the one", <-one)
		if err := <-two; !isConflict(err) {
			t.Errorf("the other: %v", err)
		}
		mustClose(t, d)
	}
}

func TestCloseAnswersWhatIsOnItsWayAndRefusesTheRest(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	before := runtime.NumGoroutine()
	d := mustOpen(t, tiny(fs, clock))
	g := fs.NewBarrier()
	answers := make(chan error, 3)
	ask := func(id string) { go func() { answers <- addN(d, id, 1) }() }
	ask("a")
	<-g.Reached
	ask("b")
	ask("c")
	awaitAsked(d, 2)
	closed := make(chan error)
	go func() { closed <- d.Close() }()
	for !refuses(d) {
		runtime.Gosched()
	}
	if err := addN(d, "late", 1); !errors.Is(err, ErrStopping) {
		t.Errorf("asked while it closes: %v", err)
	}
	g.Open()
	for range 3 {
		wantDone(t, "what was asked before", <-answers)
	}
	wantDone(t, "close", <-closed)
	for what, err := range map[string]error{
		"add":    addN(d, "a", 1),
		"reset":  d.ResetCounter(Key{"a", "a"}),
		"unlock": d.Unlock(UnlockRequest{Key: door}),
		"delete": d.DeleteValue(door, AnyVersion),
		"waiting": func() error {
			_, err := d.Lock(context.Background(), LockRequest{Key: door, Wait: time.Hour})
			return err
		}(),
	} {
		if !errors.Is(err, ErrStopping) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if n := fs.OpenHandles(); n > 0 {
		t.Errorf("%d handles are open", n)
	}
	await(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	d = mustOpen(t, tiny(fs, clock))
	for _, id := range []string{"a", "b", "c"} {
		if v, err := d.Counter(Key{"a", id}); v != 1 || err != nil {
			t.Errorf("%s is %d, %v", id, v, err)
		}
	}
	mustClose(t, d)
}

// If a segment becomes ready while the writer looks for room, the disk is not reported as
// full.
func TestGrowthInTheBackgroundIsNeverAFullDisk(t *testing.T) {
	fs := memdisk.New()
	fs.Fail(func(op memdisk.Op) error {
		runtime.Gosched()
		return nil
	})
	o := tiny(fs, newTestClock())
	o.Segment = 8 << 10
	d := mustOpen(t, o)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				if _, err := d.AddSequence(Key{"a", fmt.Sprint(w, i%2, strings.Repeat("x", 250))}, 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, d)
}

func TestQuietWritesOneDurabilityMark(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	o.QuietAfter = time.Millisecond
	d := mustOpen(t, o)
	batches := func() uint64 {
		return d.writer.Position().Log.Seq
	}
	for range 3 {
		before := batches()
		wantDone(t, "a write", addN(d, "a", 1))
		for end := time.Now().Add(20 * time.Second); batches() < before+2; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("it is quiet, and no mark is put")
			}
		}
		// No call comes, and no further durability mark is written.
		_, err := d.LockHolder(door)
		if !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		d.writer.Wake()
		if n := batches() - before; n != 2 {
			t.Errorf("a write and quiet are %d batches", n)
		}
	}
	// With the durability mark, a bad batch before it is damage and not a torn tail.
	crashed := fs.Clone()
	mustClose(t, d)
	name := path.Join(o.Dir, "log/00000001.seg")
	b, err := crashed.ReadFile(name)
	wantDone(t, "read", err)
	magic := []byte("\xcdLOG")
	last := bytes.LastIndex(b[:bytes.LastIndex(b, magic)], magic)
	b[last+100] ^= 1
	wantDone(t, "write", crashed.WriteFile(name, b))
	o.FS = crashed
	if d, err := Open(o); err == nil {
		t.Error("a damaged batch is cut as if it had been on its way")
		mustClose(t, d)
	}
}
