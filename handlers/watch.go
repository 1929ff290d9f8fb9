package handlers

import (
	"errors"
	"math"
	"net/http"
	"time"

	"clouddragon/db"
)

// defaultWatch is the default of wait with not=, unless limits.wait is less.
const defaultWatch = 30 * time.Second

// watch is how a GET waits if not= is given, until the thing has changed from what the client
// knows.
type watch struct {
	what db.Watched
	// answer answers once the thing has changed, but not if it is gone.
	answer func(*server, *call, *db.Watch) error
	not    string // the parameter that excludes not=; empty: none
}

var (
	watchSequence = &watch{db.WatchedSequence, func(_ *server, c *call, w *db.Watch) error { return c.sayNumber(w.Number) }, ""}
	watchCounter  = &watch{db.WatchedCounter, sayWatchedCounter, ""}
	watchValue    = &watch{db.WatchedValue, func(s *server, c *call, _ *db.Watch) error { return getValue(s, c) }, "ver"}
	watchLock     = &watch{db.WatchedLock, sayWatchedHolders, "token"}
	watchMutex    = &watch{db.WatchedMutex, sayWatchedHolders, "token"}
)

func sayWatchedCounter(_ *server, c *call, w *db.Watch) error {
	c.sayTTL(w.Left)
	return c.sayNumber(w.Number)
}

func sayWatchedHolders(_ *server, c *call, w *db.Watch) error { return c.say(lockResult(w.Holders)) }

// watchAsk is what not= and wait= ask for.
type watchAsk struct {
	not  db.Not
	wait time.Duration
}

// asksToWatch reads not and wait. It returns false if they are not given.
func (s *server) asksToWatch(c *call, e *endpoint) (a watchAsk, given bool, err error) {
	p := &c.params
	not := p.text("not")
	if not == "" {
		if p.text("wait") != "" {
			return a, false, badRequest("wait needs not=, which says what you already know")
		}
		return a, false, nil
	}
	if a.not.None = not == "none"; !a.not.None {
		n, ok := parseNumber(not)
		if a.not.Value = n; !ok || n < 0 && c.api != Counter {
			return a, true, badRequest("not must be none or a whole number, not %s", quote(not))
		}
	}
	a.wait = p.duration("wait", min(defaultWatch, s.limits.Wait), s.limits.Wait, true)
	if p.bad == nil && e.watch.not != "" && p.text(e.watch.not) != "" {
		return a, true, badRequest("not and %s exclude each other: give one of them", e.watch.not)
	}
	return a, true, p.bad
}

// getOrWatch serves a GET on its own goroutine. With not= it waits for a change.
func (s *server) getOrWatch(c *call, e *endpoint) error {
	a, watches, err := s.asksToWatch(c, e)
	switch {
	case err != nil:
		return err
	case watches && a.wait > 0:
		c.patience()
	case watches || c.api != KV: // a GET of kv may wait for memory
		c.brief()
	}
	if !watches {
		return e.serve(s, c)
	}
	w, err := s.db.Watch(c.peer(), e.watch.what, c.key, a.not, a.wait)
	return s.sayWatched(c, e, a, w, err)
}

// sayWatched answers after a wait for a change, which has ended with err.
func (s *server) sayWatched(c *call, e *endpoint, a watchAsk, w *db.Watch, err error) error {
	switch {
	case err == nil:
		return e.watch.answer(s, c, w)
	case !errors.Is(err, db.ErrUnchanged):
		return err
	}
	if c.api == KV && !a.not.None {
		c.w.Header()[headerETag] = []string{etag(a.not.Value)}
	}
	c.status = http.StatusNotModified
	return nil
}

// GET /db/:acc/lock/:id?token=
func getLock(s *server, c *call) error {
	read := db.LockRead{Key: c.key, Token: c.params.number("token", 0, 1, math.MaxInt64)}
	if c.params.bad != nil {
		return c.params.bad
	}
	if err := s.db.Do(&read); err != nil {
		return err
	}
	return c.say(lockResult(read.Holders))
}
