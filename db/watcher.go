package db

import (
	"context"
	"errors"
	"sync"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/list"
)

// Watched is what kind of thing is watched.
type Watched uint8

// What can be watched.
const (
	WatchedSequence = Watched(kindSequence)
	WatchedCounter  = Watched(kindCounter)
	WatchedLock     = Watched(kindLock)
	WatchedValue    = Watched(valueKind)
	WatchedMutex    = Watched(kindMutex)
)

// Watch is a wait for a change of one thing, from BeginWatch to End. Only one goroutine at a
// time may use it.
type Watch struct {
	// What Look has found.
	Number  int64         // of a sequence or a counter
	Left    time.Duration // until the counter ends; 0: it has no end
	Holders Holders       // of a lock or a mutex

	d    *DB
	key  watchKey
	not  Not
	late time.Time // when the wait is over
	held bool      // it has a place among the watchers
	wake func()
	ask  *lockLook // for a lock: asks the writer; nil: there is no question yet

	list   *watched
	listed bool // in list; list.mu guards it
	place  list.Item[Watch]

	mu      sync.Mutex // guards what follows
	asleep  bool
	changed bool  // there was a change since the look began
	end     int64 // when the thing ends by itself, in database time; 0: never
	timer   *time.Timer
}

// lockLook is a question to the writer, which knows what a lock is.
type lockLook struct {
	lookAtLock
	call  Call
	asked bool // the answer has not been used yet
}

// BeginWatch begins to wait, at most that long, until a thing is no longer what the caller
// knows. wake is called from any goroutine, and must not block. The error is ErrWatchers, and only
// if wait is not 0. Without an error the caller has to call End.
func (d *DB) BeginWatch(what Watched, k Key, not Not, wait time.Duration, wake func()) (*Watch, error) {
	w := &Watch{d: d, key: watchKey{uint8(what), k}, not: not, late: time.Now().Add(wait), wake: wake}
	if wait > 0 {
		if err := d.watchers.begin(); err != nil {
			return nil, err
		}
		w.held = true
	}
	return w, nil
}

// Look reports whether the wait is over. If it is not, wake is called once, when it is time to
// look again. If it is, the error is nil or ErrNotFound for a thing that has changed,
// ErrUnchanged after the wait, ErrStopping, an error of a move of the account or of the read.
func (w *Watch) Look(ctx context.Context) (over bool, err error) {
	for {
		if !w.Asks() {
			w.leave() // the timer or Leave may have woken it
			w.join()
			if asks, err := w.question(); asks {
				return err != nil, err
			}
		}
		same, end, err := w.read(ctx)
		missing := err == ErrNotFound
		if missing {
			err = nil
		}
		if moved := w.d.Readable(w.key.Acc); moved != nil {
			err = moved // also where that is why it is not as it was
		}
		switch {
		case err != nil:
		case !same && missing && w.key.kind != valueKind: // the caller reads a value itself
			err = ErrNotFound
		case !same:
		case w.d.watchers.isDrained():
			err = ErrStopping
		case !time.Now().Before(w.late):
			err = ErrUnchanged
		case w.sleep(end):
			return false, nil
		default: // it has changed meanwhile
			w.leave()
			continue
		}
		w.leave()
		return true, err
	}
}

// read reads the thing. It returns whether the thing is what the caller knows, when it ends by
// itself, in database time (0: never), and ErrNotFound if it does not exist.
func (w *Watch) read(ctx context.Context) (same bool, end int64, err error) {
	k, exists := w.key.Key, false
	switch Watched(w.key.kind) {
	case WatchedLock, WatchedMutex:
		err = w.readHolders(&same)
		return same, 0, err
	case WatchedValue:
		var v Value
		v, err = w.d.Head(ctx, k)
		w.Number, w.Left, exists = v.Version, v.Left, err == nil
		if errors.Is(err, ErrNotFound) {
			err = ErrNotFound
		}
	case WatchedSequence:
		w.Number, err = w.d.Sequence(k)
		exists = err == nil
	default:
		w.Number, w.Left, err = w.d.CounterTTL(k)
		exists = err == nil
	}
	if w.Left != 0 && exists {
		end = w.d.store.Clock.Now() + int64(w.Left)
	}
	return w.not.is(w.Number, exists), end, err
}

// readHolders reads who holds a mutex, or what the writer has said about a lock.
func (w *Watch) readHolders(same *bool) (err error) {
	if w.ask != nil {
		w.ask.asked = false
		w.Holders, *same, err = w.ask.Holders, w.ask.same, w.ask.call.Err
		return err
	}
	w.Holders, *same, err = look(w.not, func(token int64) (Holders, error) { return w.d.mutexes.Holders(w.key.Key, token) })
	return err
}

// look reports whether a token still holds a lock or, with None, whether the lock is free. read
// reads all holders or that of a token. If it is not the same, look returns the holders or
// ErrNotFound.
func look(not Not, read func(token int64) (Holders, error)) (all Holders, same bool, err error) {
	if !not.None {
		_, err := read(not.Value)
		if held := (*HeldError)(nil); err == nil || err != ErrNotFound && !errors.As(err, &held) {
			return all, err == nil, err
		}
	}
	all, err = read(0)
	return all, not.None && err == ErrNotFound, err
}

// question asks the writer about a lock. It returns false for other things, which Look reads
// itself.
func (w *Watch) question() (asks bool, err error) {
	if Watched(w.key.kind) != WatchedLock {
		return false, nil
	}
	w.ask = &lockLook{asked: true}
	w.ask.lookAtLock = lookAtLock{LockRead: LockRead{Key: w.key.Key}, not: w.not}
	w.ask.call = Call{Op: &w.ask.lookAtLock, Done: func(*Call) { w.wake() }}
	w.d.SubmitAll(false, []*Call{&w.ask.call})
	return true, nil
}

// Asks reports whether w waits for the answer of the writer only, which comes soon.
func (w *Watch) Asks() bool { return w.ask != nil && w.ask.asked }

// lookAtLock is the operation that looks at a lock for a watcher.
type lookAtLock struct {
	LockRead
	not  Not
	same bool
}

// Decide looks. It returns ErrNotFound if the lock is free.
func (o *lookAtLock) Decide(tx *commit.Tx) (err error) {
	o.Holders, o.same, err = look(o.not, func(token int64) (Holders, error) {
		return listHolders(o.locks.table, tx.Now(), tx.Wall, "lock", o.Key, token)
	})
	return err
}

// join adds w to the list of its thing.
func (w *Watch) join() {
	w.mu.Lock()
	w.changed = false
	w.mu.Unlock()
	all := w.d.watchers
	all.mu.Lock()
	defer all.mu.Unlock()
	l := all.watched[w.key]
	if l == nil {
		l = new(watched)
		all.watched[w.key] = l
		all.keys.Store(int64(len(all.watched)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w.list, w.listed, w.place = l, true, l.all.End(w)
	l.all.PutBack(&w.place)
}

// leave removes w from its list, unless it was woken.
func (w *Watch) leave() {
	all, l := w.d.watchers, w.list
	if l == nil {
		return
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	w.list = nil
	if !w.listed {
		return
	}
	w.listed = false
	l.all.Remove(&w.place)
	if l.all.Len() == 0 && all.watched[w.key] == l {
		delete(all.watched, w.key)
		all.keys.Store(int64(len(all.watched)))
	}
}

// sleep reports whether w sleeps now. It does not if there was a change since the look began.
func (w *Watch) sleep(end int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed {
		return false
	}
	w.asleep, w.end = true, end
	if w.timer == nil {
		w.timer = time.AfterFunc(w.left(), w.ring)
	} else {
		w.timer.Reset(w.left())
	}
	return true
}

// left returns how long w may sleep before it looks at the clocks.
func (w *Watch) left() time.Duration {
	left := time.Until(w.late)
	if w.end != 0 {
		// The timer stands still while the machine sleeps.
		left = min(left, commit.ClockTick, time.Duration(w.end-w.d.store.Clock.Now()))
	}
	return left
}

// ring is called by the timer. It wakes w if the wait or the thing has ended.
func (w *Watch) ring() {
	w.mu.Lock()
	if !w.asleep {
		w.mu.Unlock()
		return
	}
	if left := w.left(); left > 0 {
		w.timer.Reset(left)
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	w.signal()
}

// signal wakes w if it sleeps.
func (w *Watch) signal() {
	w.mu.Lock()
	wakes := w.asleep
	w.asleep, w.changed = false, true
	w.mu.Unlock()
	if wakes {
		w.wake()
	}
}

// Leave wakes w if it sleeps, because its caller does not want to wait any more. Any goroutine may
// call it while w waits.
func (w *Watch) Leave() {
	w.mu.Lock()
	wakes := w.asleep
	w.asleep = false
	w.mu.Unlock()
	if wakes {
		w.wake()
	}
}

// End ends the watch. wake is not called any more, unless a call is under way.
func (w *Watch) End() {
	w.leave()
	w.mu.Lock()
	w.asleep = false
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	if w.held {
		w.d.watchers.end()
	}
}

// Watch waits until a thing is no longer what the caller knows. The error is that of BeginWatch
// or Look, or the context's. If it is nil, look at the Watch for what was found.
func (d *DB) Watch(ctx context.Context, what Watched, k Key, not Not, wait time.Duration) (*Watch, error) {
	woken := make(chan struct{}, 1)
	w, err := d.BeginWatch(what, k, not, wait, func() { woken <- struct{}{} })
	if err != nil {
		return nil, err
	}
	defer w.End()
	for {
		if over, err := w.Look(ctx); over {
			return w, err
		}
		if w.Asks() {
			<-woken // the answer comes soon, and may end the wait
			continue
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
