package db

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// A watcher waits until a thing is no longer what its caller knows. It joins the list of
// the thing and reads the thing. If the thing has not changed, it waits until the list is
// closed, and looks again. A commit closes the lists of what it has touched, after the batch
// is durable and applied. So no change is missed, and none is told early.
//
// What ends the wait: a change, the end of the thing or of the wait (ErrUnchanged), the
// caller's context, or a stop (ErrStopping).

// kindMutex stands for mutexes in a watchKey. No slot has this kind.
const kindMutex uint8 = 255

// valueKind stands for values in a watchKey and in commit.Touched.
const valueKind uint8 = 0

var (
	// ErrUnchanged is returned when nothing has changed before the wait was over.
	ErrUnchanged = errors.New("nothing has changed")
	// ErrWatchers is returned when there are too many watchers.
	ErrWatchers = errors.New("too many watchers: try again later")
)

// Not is what a watcher knows. It waits while the thing is still that.
type Not struct {
	None  bool  // the thing does not exist, or nobody holds it
	Value int64 // otherwise: the value, the version or a holder's token
}

// is reports whether a thing that has n, or does not exist, is still what the watcher
// knows.
func (not Not) is(n int64, exists bool) bool {
	if not.None || !exists {
		return not.None && !exists
	}
	return n == not.Value
}

// watchKey names what is watched.
type watchKey struct {
	kind uint8
	Key
}

// watched is the list of the watchers of one thing.
type watched struct {
	changed chan struct{} // closed when the thing has changed
	n       int           // watchers on the list
}

// watchers has all watchers.
type watchers struct {
	limit int64
	n     atomic.Int64 // watchers and streams of events

	keys    atomic.Int64 // how many things are watched
	mu      sync.Mutex   // guards watched; held for a moment
	watched map[watchKey]*watched

	drained   chan struct{} // closed when the server stops
	drainOnce sync.Once
}

// WatchStats are the figures of watchers and streams.
type WatchStats struct {
	Watchers int64  // watchers and streams of events
	Limit    int64  // the most that Watchers may be
	Streams  int64  // streams of events
	Lost     uint64 // streams that were ended because they fell behind, since Open
}

func (d *DB) watchStats() WatchStats {
	return WatchStats{Watchers: d.watchers.n.Load(), Limit: d.watchers.limit, Streams: d.events.open.Load(), Lost: d.events.lost.Load()}
}

func newWatchers(limit int) *watchers {
	return &watchers{limit: int64(limit), watched: make(map[watchKey]*watched), drained: make(chan struct{})}
}

// begin counts one more watcher. Without an error the caller has to call end.
func (w *watchers) begin() error {
	if w.n.Add(1) > w.limit {
		w.n.Add(-1)
		return ErrWatchers
	}
	return nil
}

func (w *watchers) end() { w.n.Add(-1) }

// join adds a watcher to the list of a thing.
func (w *watchers) join(k watchKey) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.watched[k]
	if l == nil {
		l = &watched{changed: make(chan struct{})}
		w.watched[k] = l
		w.keys.Store(int64(len(w.watched)))
	}
	l.n++
	return l
}

// leave removes a watcher from a list, which may be closed.
func (w *watchers) leave(k watchKey, l *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.n--; l.n == 0 && w.watched[k] == l {
		delete(w.watched, k)
		w.keys.Store(int64(len(w.watched)))
	}
}

// take moves the list of a thing to lists. w.mu must be held.
func (w *watchers) take(lists []*watched, k watchKey) []*watched {
	if l := w.watched[k]; l != nil {
		delete(w.watched, k)
		lists = append(lists, l)
	}
	return lists
}

// publish wakes the watchers of what a durable batch has touched. Another goroutine does
// that, because waking thousands takes a while.
func (w *watchers) publish(touched []commit.Touched) {
	// A watcher that joins later reads the applied batch.
	if w.keys.Load() == 0 {
		return
	}
	var lists []*watched
	w.mu.Lock()
	for i := range touched {
		t := &touched[i]
		lists = w.take(lists, watchKey{t.Kind, Key{t.Acc, t.ID}})
	}
	w.keys.Store(int64(len(w.watched)))
	w.mu.Unlock()
	if len(lists) > 0 {
		go wakeAll(lists)
	}
}

// mutexChanged wakes the watchers of a mutex.
func (w *watchers) mutexChanged(k lease.Key) {
	if w.keys.Load() == 0 {
		return
	}
	w.mu.Lock()
	lists := w.take(nil, watchKey{kindMutex, Key(k)})
	w.keys.Store(int64(len(w.watched)))
	w.mu.Unlock()
	if len(lists) > 0 {
		go wakeAll(lists)
	}
}

func wakeAll(lists []*watched) {
	for _, l := range lists {
		close(l.changed)
	}
}

// drain answers all watchers with ErrStopping, and later ones too.
func (w *watchers) drain() { w.drainOnce.Do(func() { close(w.drained) }) }

// watch waits until same reports that a thing is no longer what the caller knows. same also
// returns when the thing ends by itself, in database time; 0: never. The error is
// ErrUnchanged, ErrWatchers, ErrStopping, same's or the context's.
func (d *DB) watch(ctx context.Context, k watchKey, wait time.Duration, same func() (same bool, end int64, err error)) error {
	w := d.watchers
	if err := w.begin(); err != nil {
		return err
	}
	defer w.end()
	late := time.NewTimer(wait)
	defer late.Stop()
	for {
		moves := d.moves.changed()
		l := w.join(k)
		is, end, err := same()
		if moved := d.Readable(k.Acc); moved != nil {
			err = moved // also where that is why it is not as it was
		}
		if err == nil && is {
			err = d.await(ctx, l, late.C, moves, end)
		}
		w.leave(k, l)
		if err != nil || !is {
			return err
		}
	}
}

// await waits until a list is closed, or it is time to look again.
func (d *DB) await(ctx context.Context, l *watched, late <-chan time.Time, moves <-chan struct{}, end int64) error {
	var ended <-chan time.Time
	if end != 0 {
		// The timer stands still while the machine sleeps.
		left := min(time.Duration(end-d.store.Clock.Now()), commit.ClockTick)
		t := time.NewTimer(left)
		defer t.Stop()
		ended = t.C
	}
	select {
	case <-d.watchers.drained:
		return ErrStopping
	default:
	}
	select {
	case <-l.changed:
		return nil
	case <-moves:
		return nil
	case <-ended:
		return nil
	case <-late:
		return ErrUnchanged
	case <-d.watchers.drained:
		return ErrStopping
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// WatchValue waits until the version of a value is not the known one. If the wait is over
// before, it returns ErrUnchanged.
func (d *DB) WatchValue(ctx context.Context, k Key, not Not, wait time.Duration) error {
	return d.watch(ctx, watchKey{valueKind, k}, wait, func() (bool, int64, error) {
		v, err := d.Head(ctx, k)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, 0, err
		}
		return not.is(v.Version, err == nil), d.endAfter(v.Left), nil
	})
}

// WatchSequence waits until the value of a sequence is not the known one. It returns the
// value or ErrNotFound. If the wait is over before, it returns ErrUnchanged.
func (d *DB) WatchSequence(ctx context.Context, k Key, not Not, wait time.Duration) (n int64, err error) {
	return d.watchNumber(ctx, kindSequence, k, not, wait, func() (int64, int64, error) {
		n, err := d.Sequence(k)
		return n, 0, err
	})
}

// WatchCounter is WatchSequence for a counter. It also returns the time until the counter
// ends, 0 if it has no end.
func (d *DB) WatchCounter(ctx context.Context, k Key, not Not, wait time.Duration) (n int64, left time.Duration, err error) {
	n, err = d.watchNumber(ctx, kindCounter, k, not, wait, func() (int64, int64, error) {
		n, l, err := d.CounterTTL(k)
		left = l
		return n, d.endAfter(left), err
	})
	return n, left, err
}

// endAfter returns the instant, in database time, that is left from now; 0 if left is 0.
func (d *DB) endAfter(left time.Duration) int64 {
	if left == 0 {
		return 0
	}
	return d.store.Clock.Now() + int64(left)
}

func (d *DB) watchNumber(ctx context.Context, kind uint8, k Key, not Not, wait time.Duration, read func() (n, end int64, err error)) (n int64, err error) {
	var found error
	err = d.watch(ctx, watchKey{kind, k}, wait, func() (same bool, end int64, err error) {
		if n, end, found = read(); found != nil && found != ErrNotFound {
			return false, 0, found
		}
		return not.is(n, found == nil), end, nil
	})
	if err == nil {
		err = found
	}
	return n, err
}

// WatchLock waits while the known token holds a lock or, with None, while the lock is free.
// It returns the holders or ErrNotFound. If the wait is over before, it returns
// ErrUnchanged.
func (d *DB) WatchLock(ctx context.Context, k Key, not Not, wait time.Duration) (Holders, error) {
	return d.watchHolders(ctx, kindLock, k, not, wait, func(token int64) (Holders, error) {
		read := LockRead{Key: k, Token: token}
		err := d.Do(&read)
		return read.Holders, err
	})
}

// WatchMutex is WatchLock for a mutex.
func (d *DB) WatchMutex(ctx context.Context, k Key, not Not, wait time.Duration) (Holders, error) {
	return d.watchHolders(ctx, kindMutex, k, not, wait, func(token int64) (Holders, error) {
		return d.mutexes.Holders(k, token)
	})
}

func (d *DB) watchHolders(ctx context.Context, kind uint8, k Key, not Not, wait time.Duration, read func(token int64) (Holders, error)) (all Holders, err error) {
	var found error
	err = d.watch(ctx, watchKey{kind, k}, wait, func() (bool, int64, error) {
		if !not.None {
			_, err := read(not.Value)
			if held := (*HeldError)(nil); err == nil || !errors.As(err, &held) {
				return err == nil, 0, err
			}
		}
		all, found = read(0)
		if found != nil && found != ErrNotFound {
			return false, 0, found
		}
		return not.None && found != nil, 0, nil
	})
	if err == nil {
		err = found
	}
	return all, err
}
