package db

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
	"clouddragon/internal/list"
)

// A watcher waits until a thing is no longer what its caller knows. It joins the list of
// the thing and reads the thing. If the thing has not changed, the watcher sleeps until it is
// woken, and looks again. A commit wakes the lists of what it has touched, after the batch
// is durable and applied. So no change is missed, and none is told early.
//
// What wakes a watcher besides: the end of the thing or of the wait, a mark of an account that
// moves, a stop, and its caller, with Leave. A watcher that sleeps needs no goroutine.

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
	mu  sync.Mutex // guards all; taken after watchers.mu
	all list.List[Watch]
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

// isDrained reports whether the server stops.
func (w *watchers) isDrained() bool {
	select {
	case <-w.drained:
		return true
	default:
		return false
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

// wakeEvery wakes all watchers, because something may concern any of them.
func (w *watchers) wakeEvery() {
	w.mu.Lock()
	lists := slices.Collect(maps.Values(w.watched))
	clear(w.watched)
	w.keys.Store(0)
	w.mu.Unlock()
	wakeAll(lists)
}

// wakeAll empties lists and wakes the watchers that were on them.
func wakeAll(lists []*watched) {
	for _, l := range lists {
		for {
			l.mu.Lock()
			w := l.all.First()
			if w != nil {
				l.all.Remove(&w.place)
				w.listed = false
			}
			l.mu.Unlock()
			if w == nil {
				break
			}
			w.signal()
		}
	}
}

// drain answers all watchers with ErrStopping, and later ones too.
func (w *watchers) drain() {
	w.drainOnce.Do(func() { close(w.drained) })
	w.wakeEvery()
}
