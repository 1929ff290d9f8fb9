package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// settle is how long a holder waits before it unlocks, once all others have
// asked, for each that has asked meanwhile: long enough for it to be in the
// queue. At first these are all, later the holder before alone.
const settle = 200 * time.Microsecond

// handOvers hands the row's lock around among waiters+1 clients, each on its
// own connection, for a time, and returns how long each hand-over took: from
// the unlock sent to the next client's grant received.
func handOvers(ctx context.Context, addr string, r *row, waiters int, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &ring{
		lock:    fmt.Sprintf("/db/%s/%s/ring%d?dur=60&wait=60", r.acc, r.api, waiters),
		waiters: waiters,
		length:  d,
	}
	var api string
	g.method, api, _ = strings.Cut(r.unlock, " ")
	g.unlock = fmt.Sprintf("/db/%s/%s/ring%d", r.acc, api, waiters)

	var all sync.WaitGroup
	for range waiters + 1 {
		c, err := dial(addr)
		if err != nil {
			cancel(err)
			break
		}
		all.Go(func() {
			defer context.AfterFunc(ctx, c.close)()
			defer c.close()
			for ctx.Err() == nil {
				if err := g.turn(ctx, c); err != nil {
					cancel(err) // of no effect where the end of ctx is the reason
				}
			}
		})
	}
	defer time.AfterFunc(d+patience, func() {
		cancel(fmt.Errorf("%s: a lock that %d clients want stands still", g.lock, waiters+1))
	}).Stop()
	all.Wait()
	if err := context.Cause(ctx); err != errEnough {
		return nil, err
	}
	return g.took, nil
}

// errEnough ends a measurement that went well.
var errEnough = errors.New("enough was measured")

// ring is what the clients of a lock share.
type ring struct {
	lock           string // the path that locks, with POST
	method, unlock string
	waiters        int
	length         time.Duration // of the measurement

	mu       sync.Mutex // guards what follows
	asking   int        // clients that have asked for the lock and have no answer
	held     bool
	token    int64     // of the last grant
	began    time.Time // when the first holder sent its unlock
	unlocked time.Time // when the holder before sent its unlock; zero at first
	took     []time.Duration
}

// turn is one client's: it queues, holds the lock until all others queue, and
// hands it over.
func (g *ring) turn(ctx context.Context, c *client) error {
	g.mu.Lock()
	g.asking++
	g.mu.Unlock()
	a, err := c.ask("POST", g.lock, "")
	now := time.Now()
	if err != nil {
		return err
	}
	if err := g.granted(a, now); err != nil {
		return err
	}
	for !g.allAsk() && ctx.Err() == nil {
		time.Sleep(settle / 4)
	}
	time.Sleep(g.pause())
	g.mu.Lock()
	g.held = false
	g.unlocked = time.Now()
	if g.began.IsZero() {
		g.began = g.unlocked
	}
	g.mu.Unlock()
	a, err = c.ask(g.method, g.unlock, "")
	if err == nil && !a.ok() {
		err = refusal(a)
	}
	return err
}

// granted notes a grant, and finds fault with one that breaks the lock's
// promise. It returns errEnough once the time is over.
func (g *ring) granted(a answer, now time.Time) error {
	if !a.ok() {
		return refusal(a)
	}
	token, err := strconv.ParseInt(strings.TrimSpace(string(a.body)), 10, 64)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking--
	if g.held || token <= g.token {
		return fmt.Errorf("%s: token %d was granted after %d, while that was held: %v", g.lock, token, g.token, g.held)
	}
	g.held, g.token = true, token
	if !g.unlocked.IsZero() {
		g.took = append(g.took, now.Sub(g.unlocked))
		if now.Sub(g.began) >= g.length {
			return errEnough
		}
	}
	return nil
}

// pause is how long the holder waits once all others have asked.
func (g *ring) pause() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.began.IsZero() {
		return time.Duration(g.waiters) * settle
	}
	return settle
}

func (g *ring) allAsk() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asking == g.waiters
}

// roundTrips returns how long each POST took of one client that asks for a
// time, with the pauses that a holder makes.
func roundTrips(ctx context.Context, addr string, d time.Duration) ([]time.Duration, error) {
	c, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(settle)
		began := time.Now()
		a, err := c.ask("POST", "/", "")
		if err != nil {
			return nil, err
		}
		if !a.ok() {
			return nil, refusal(a)
		}
		took = append(took, time.Since(began))
	}
	return took, context.Cause(ctx)
}
