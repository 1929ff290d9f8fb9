package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// far is a wait that is longer than any test.
const far = time.Hour

// watching is a watch on its own goroutine.
type watching struct {
	cancel context.CancelFunc
	done   chan error
}

// WatchSequence watches a sequence on the caller's goroutine.
func (d *DB) WatchSequence(ctx context.Context, k Key, not Not, wait time.Duration) (int64, error) {
	w, err := d.Watch(ctx, WatchedSequence, k, not, wait)
	if err != nil {
		return 0, err
	}
	return w.Number, nil
}

func (d *DB) watchIt(ctx context.Context, what Watched, k Key, not Not, wait time.Duration) error {
	_, err := d.Watch(ctx, what, k, not, wait)
	return err
}

// startWatch runs watch and returns once it is in the list of its key.
func startWatch(t *testing.T, d *DB, watch func(ctx context.Context) error) *watching {
	t.Helper()
	before := d.watchers.n.Load()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{cancel: cancel, done: make(chan error, 1)}
	t.Cleanup(cancel)
	go func() { w.done <- watch(ctx) }()
	await(t, "a watcher in a list", func() bool {
		return len(w.done) > 0 || d.watchers.n.Load() != before && d.watchers.keys.Load() != 0
	})
	return w
}

// isListed reports whether a watcher is in the list of a key. A commit takes the list before
// its calls are answered.
func isListed(d *DB, kind uint8, k Key) bool {
	d.watchers.mu.Lock()
	defer d.watchers.mu.Unlock()
	return d.watchers.watched[watchKey{kind, k}] != nil
}

// checkNobodyWatches reports what a watcher has left behind.
func checkNobodyWatches(t *testing.T, d *DB) {
	t.Helper()
	d.watchers.mu.Lock()
	defer d.watchers.mu.Unlock()
	if n := d.watchers.n.Load(); n != 0 || len(d.watchers.watched) != 0 || d.watchers.keys.Load() != 0 {
		t.Errorf("%d watchers and %d lists are left", n, len(d.watchers.watched))
	}
}

func memoryDB(t *testing.T) (*DB, *memdisk.FS, *testClock) {
	t.Helper()
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	t.Cleanup(func() { mustClose(t, d) })
	return d, fs, clock
}

func TestWatcherIsToldOfEachKindOfChange(t *testing.T) {
	k := Key{"acc", "id"}
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		begin  func(d *DB) (int64, error)
		change func(d *DB, clock *testClock, n int64) error
		what   Watched
		want   error
	}{
		{"a sequence", func(d *DB) (int64, error) { return d.AddSequence(k, 1) },
			func(d *DB, _ *testClock, _ int64) error { _, err := d.AddSequence(k, 1); return err },
			WatchedSequence, nil},
		{"a counter that is deleted", func(d *DB) (int64, error) { return d.AddCounter(k, 1, 0, 9) },
			func(d *DB, _ *testClock, _ int64) error { return d.ResetCounter(k) },
			WatchedCounter, ErrNotFound},
		{"a value", func(d *DB) (int64, error) { return d.Set(SetRequest{Key: k, Check: AnyVersion}) },
			func(d *DB, _ *testClock, _ int64) error {
				_, err := d.Set(SetRequest{Key: k, Check: AnyVersion})
				return err
			},
			WatchedValue, nil},
		{"a value that is deleted", func(d *DB) (int64, error) { return d.Set(SetRequest{Key: k, Check: AnyVersion}) },
			func(d *DB, _ *testClock, _ int64) error { return d.DeleteValue(k, AnyVersion) },
			WatchedValue, nil},
		{"a value that expires", func(d *DB) (int64, error) {
			return d.Set(SetRequest{Key: k, Check: AnyVersion, TTL: time.Minute})
		},
			func(_ *DB, clock *testClock, _ int64) error { clock.pass(time.Minute); return nil },
			WatchedValue, nil},
		{"a lock that is given back", func(d *DB) (int64, error) { return d.Lock(ctx, LockRequest{Key: k, Dur: far}) },
			func(d *DB, _ *testClock, n int64) error { return d.Unlock(UnlockRequest{Key: k, Token: n}) },
			WatchedLock, ErrNotFound},
		{"a lock that expires", func(d *DB) (int64, error) { return d.Lock(ctx, LockRequest{Key: k, Dur: time.Minute}) },
			func(d *DB, clock *testClock, _ int64) error { clock.pass(time.Minute); d.writer.Wake(); return nil },
			WatchedLock, ErrNotFound},
		{"a lock that rests", func(d *DB) (int64, error) { return d.Lock(ctx, LockRequest{Key: k, Dur: far, Least: far}) },
			func(d *DB, _ *testClock, n int64) error { return d.Unlock(UnlockRequest{Key: k, Token: n}) },
			WatchedLock, nil},
		{"a mutex that is given back", func(d *DB) (int64, error) { return d.LockMutex(ctx, LockRequest{Key: k, Dur: far}) },
			func(d *DB, _ *testClock, n int64) error { return d.UnlockMutex(UnlockRequest{Key: k, Token: n}) },
			WatchedMutex, ErrNotFound},
		{"a mutex that rests", func(d *DB) (int64, error) { return d.LockMutex(ctx, LockRequest{Key: k, Dur: far, Least: far}) },
			func(d *DB, _ *testClock, n int64) error { return d.UnlockMutex(UnlockRequest{Key: k, Token: n}) },
			WatchedMutex, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, clock := memoryDB(t)
			none := startWatch(t, d, func(ctx context.Context) error {
				return d.watchIt(ctx, c.what, k, Not{None: true}, far)
			})
			n, err := c.begin(d)
			if err != nil {
				t.Fatal(err)
			}
			if err := soon(t, "what makes it", none.done); err != nil {
				t.Errorf("not=none: %v", err)
			}
			w := startWatch(t, d, func(ctx context.Context) error {
				return d.watchIt(ctx, c.what, k, Not{Value: n}, far)
			})
			if err := c.change(d, clock, n); err != nil {
				t.Fatal(err)
			}
			if err := soon(t, "the change", w.done); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := d.watchIt(ctx, c.what, k, Not{Value: n + 1000}, far); c.want == nil && err != nil {
				t.Errorf("another value than the one there: %v", err)
			}
			checkNobodyWatches(t, d)
		})
	}
}

// TestWatcherIsToldOfAHandOver watches a lock that is handed over to another holder.
func TestWatcherIsToldOfAHandOver(t *testing.T) {
	d, _, _ := memoryDB(t)
	k, ctx := Key{"acc", "l"}, context.Background()
	first, err := d.Lock(ctx, LockRequest{Key: k, Dur: far, Owner: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var all Holders
	w := startWatch(t, d, func(ctx context.Context) error {
		w, err := d.Watch(ctx, WatchedLock, k, Not{Value: first}, far)
		if err == nil {
			all = w.Holders
		}
		return err
	})
	next := make(chan error, 1)
	go func() {
		_, err := d.Lock(ctx, LockRequest{Key: k, Dur: far, Owner: "b", Wait: far})
		next <- err
	}()
	await(t, "the next one waits", func() bool { return d.Stats().Locks.Waiting > 0 })
	if err := d.Unlock(UnlockRequest{Key: k, Token: first}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(soon(t, "the hand-over", w.done), soon(t, "the lock", next)); err != nil {
		t.Fatal(err)
	}
	if all.Holders[0].Owner != "b" {
		t.Errorf("the watcher sees %+v, want the new holder", all.Holders[0])
	}
}

// TestWatcherIsNotToldBeforeItIsDurable checks a watch list while the change is on the way to
// disk.
func TestWatcherIsNotToldBeforeItIsDurable(t *testing.T) {
	d, fs, _ := memoryDB(t)
	k := Key{"acc", "id"}
	w := startWatch(t, d, func(ctx context.Context) error {
		_, err := d.WatchSequence(ctx, k, Not{None: true}, far)
		return err
	})
	g := fs.NewBarrier()
	added := make(chan error, 1)
	go func() {
		_, err := d.AddSequence(k, 1)
		added <- err
	}()
	soon(t, "the sync", g.Reached)
	if !isListed(d, kindSequence, k) {
		t.Error("the watcher was told before the sync")
	}
	g.Open()
	if err := errors.Join(soon(t, "the write", added), soon(t, "the change", w.done)); err != nil {
		t.Fatal(err)
	}
}

// TestChangeRightAfterTheLookIsSeen changes a thing between a watcher's look and its sleep.
func TestChangeRightAfterTheLookIsSeen(t *testing.T) {
	d, _, _ := memoryDB(t)
	k := Key{"acc", "id"}
	w, err := d.BeginWatch(WatchedSequence, k, Not{None: true}, far, func() { t.Error("it was woken, and did not sleep") })
	if err != nil {
		t.Fatal(err)
	}
	defer w.End()
	w.join()
	if same, _, err := w.read(t.Context()); !same || err != ErrNotFound {
		t.Fatalf("%v, %v", same, err)
	}
	if _, err := d.AddSequence(k, 1); err != nil {
		t.Fatal(err)
	}
	await(t, "the change is told", func() bool { return w.isTold() })
	if w.sleep(0) {
		t.Error("it sleeps after the change")
	}
}

// isTold reports whether w knows of a change since its look began.
func (w *Watch) isTold() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// TestWatcherIsNotToldOfWhatWasUndone refuses a group after a part of it was decided.
func TestWatcherIsNotToldOfWhatWasUndone(t *testing.T) {
	d, _, _ := memoryDB(t)
	k, other := Key{"acc", "id"}, Key{"acc", "other"}
	w := startWatch(t, d, func(ctx context.Context) error {
		_, err := d.WatchSequence(ctx, k, Not{None: true}, far)
		return err
	})
	// In one batch with another, so that something is published.
	answered := make(chan error, 2)
	done := func(c *Call) { answered <- c.Err }
	refused := &Call{Op: &Batch{Ops: []Operation{&SequenceAdd{Key: k, N: 1}, &CounterAdd{Key: other, Add: 1, Max: -1}}, Atomic: true}, Done: done}
	if err := d.Submit(refused, &Call{Op: &SequenceAdd{Key: other, N: 1}, Done: done}); err != nil {
		t.Fatal(err)
	}
	if first, second := soon(t, "an answer", answered), soon(t, "an answer", answered); (first == nil) == (second == nil) {
		t.Fatalf("got %v and %v, want one refusal", first, second)
	}
	if !isListed(d, kindSequence, k) {
		t.Error("the watcher was told")
	}
	w.cancel()
	if err := soon(t, "the hang-up", w.done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkNobodyWatches(t, d)
}

func TestWatcherEndsWithoutAChange(t *testing.T) {
	d, _, _ := memoryDB(t)
	k, ctx := Key{"acc", "id"}, context.Background()
	if err := d.watchIt(ctx, WatchedCounter, k, Not{None: true}, 0); err != ErrUnchanged {
		t.Errorf("without a wait: %v", err)
	}
	if err := d.watchIt(ctx, WatchedCounter, k, Not{None: true}, time.Millisecond); err != ErrUnchanged {
		t.Errorf("with a short wait: %v", err)
	}
	watch := func(ctx context.Context) error { return d.watchIt(ctx, WatchedValue, k, Not{None: true}, far) }
	gone := startWatch(t, d, watch)
	gone.cancel()
	if err := soon(t, "the hang-up", gone.done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkNobodyWatches(t, d)

	d.watchers.limit = 2
	var some []*watching
	for range 2 {
		some = append(some, startWatch(t, d, watch))
	}
	if err := watch(ctx); err != ErrWatchers {
		t.Errorf("one too many: %v", err)
	}
	if err := d.watchIt(ctx, WatchedValue, k, Not{None: true}, 0); err != ErrUnchanged {
		t.Errorf("one that does not wait, while all places are taken: %v", err)
	}
	d.Drain()
	for _, w := range some {
		if err := soon(t, "the drain", w.done); err != ErrStopping {
			t.Errorf("drain: %v", err)
		}
	}
	if err := watch(ctx); err != ErrStopping {
		t.Errorf("after the drain: %v", err)
	}
	checkNobodyWatches(t, d)
}

// TestWatchersMissNothing lets watchers follow numbers that others change. Each watcher sees
// new values in order, and all see the last one.
func TestWatchersMissNothing(t *testing.T) {
	d, _, _ := memoryDB(t)
	const things, each, last = 3, 5, 200
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range things {
		k := Key{"acc", fmt.Sprint(i)}
		for range each {
			wg.Go(func() {
				not, seen := Not{None: true}, int64(0)
				for seen < last {
					n, err := d.WatchSequence(ctx, k, not, far)
					if err != nil || n <= seen {
						t.Errorf("after %d: %d, %v", seen, n, err)
						return
					}
					seen, not = n, Not{Value: n}
				}
			})
		}
		wg.Go(func() {
			for range last {
				if _, err := d.AddSequence(k, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkNobodyWatches(t, d)
}

// TestManyWatchersOfOneThing would also hang if a commit waited for the watchers that it wakes
// up.
func TestManyWatchersOfOneThing(t *testing.T) {
	d, _, _ := memoryDB(t)
	const many = 10_000
	k := Key{"acc", "id"}
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			if _, err := d.WatchSequence(context.Background(), k, Not{None: true}, far); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		d.watchers.mu.Lock()
		l := d.watchers.watched[watchKey{kindSequence, k}]
		n := 0
		if l != nil {
			l.mu.Lock()
			n = l.all.Len()
			l.mu.Unlock()
		}
		d.watchers.mu.Unlock()
		if n == many {
			break
		}
		runtime.Gosched()
	}
	if _, err := d.AddSequence(k, 1); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	checkNobodyWatches(t, d)
}
