package handlers

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	"clouddragon/db"
)

// defaultWatch is the default of wait with not=, unless limits.wait is less.
const defaultWatch = 30 * time.Second

// watchable returns a GET that waits if not= is given, until the thing has changed from
// what the client knows.
func watchable(get func(*server, *call) error, watch func(*server, *call, db.Not, time.Duration) error) func(*server, *call) error {
	return func(s *server, c *call) error {
		not, wait, given := s.watchParams(&c.params, c.api)
		switch {
		case c.params.bad != nil:
			return c.params.bad
		case !given:
			if c.api != KV { // kv may wait for memory
				c.brief()
			}
			return get(s, c)
		case wait == 0:
			c.brief()
		default:
			c.patience()
		}
		err := watch(s, c, not, wait)
		if errors.Is(err, db.ErrUnchanged) {
			if c.api == KV && !not.None {
				c.w.Header()[headerETag] = []string{etag(not.Value)}
			}
			c.status = http.StatusNotModified
			return nil
		}
		return err
	}
}

// watchParams reads not and wait.
func (s *server) watchParams(p *params, api API) (not db.Not, wait time.Duration, given bool) {
	given = p.text("not") != ""
	if not.None = p.text("not") == "none"; given && !not.None {
		n, ok := parseNumber(p.text("not"))
		if not.Value = n; !ok || n < 0 && api != Counter {
			p.fail(badRequest("not must be none or a whole number, not %s", quote(p.text("not"))))
		}
	}
	if !given && p.text("wait") != "" {
		p.fail(badRequest("wait needs not=, which says what you already know"))
	}
	return not, p.duration("wait", min(defaultWatch, s.limits.Wait), s.limits.Wait, true), given
}

// alone refuses not= and wait= on a call that cannot wait.
func alone(p *params) {
	for _, name := range []string{"not", "wait"} {
		if p.text(name) != "" {
			p.fail(badRequest("%s is not allowed in a batch, which does not wait", name))
		}
	}
	if slices.Contains(p.names, "stale") && p.text("stale") != "" {
		p.fail(badRequest("stale is not allowed in a batch, which only a primary answers"))
	}
}

func watchSequence(s *server, c *call, not db.Not, wait time.Duration) error {
	n, err := s.db.WatchSequence(c.peer(), c.key, not, wait)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

func watchCounter(s *server, c *call, not db.Not, wait time.Duration) error {
	n, left, err := s.db.WatchCounter(c.peer(), c.key, not, wait)
	if err != nil {
		return err
	}
	c.sayTTL(left)
	return c.sayNumber(n)
}

func watchValue(s *server, c *call, not db.Not, wait time.Duration) error {
	if c.params.text("ver") != "" {
		return badRequest("not and ver exclude each other: give one of them")
	}
	if err := s.db.WatchValue(c.peer(), c.key, not, wait); err != nil {
		return err
	}
	return getValue(s, c)
}

func watchLock(s *server, c *call, not db.Not, wait time.Duration) error {
	return watchHolders(c, not, wait, s.db.WatchLock)
}

func watchMutex(s *server, c *call, not db.Not, wait time.Duration) error {
	return watchHolders(c, not, wait, s.db.WatchMutex)
}

// watchHolders watches a lock or a mutex.
func watchHolders(c *call, not db.Not, wait time.Duration, watch func(context.Context, db.Key, db.Not, time.Duration) (db.Holders, error)) error {
	if c.params.text("token") != "" {
		return badRequest("not and token exclude each other: give one of them")
	}
	all, err := watch(c.peer(), c.key, not, wait)
	if err != nil {
		return err
	}
	return c.say(lockResult(all))
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
