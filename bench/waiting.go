package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// letIn measures how long it takes until one unlock has let in so many readers of a lock
// on disk.
func letIn(readers int) *row {
	w := work{"http": overHTTP("POST /db/door/lock/one?id=<client>&shared=true&dur=60&wait=60")}
	return &row{name: "lock, all that wait are let in by one unlock", conns: readers, work: w, stateful: true, figures: []figure{{"ms", true}},
		measure: func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			c := &crowd{work: w, conns: readers, n: readers}
			took, err := t.door(ctx, c, "POST /db/door/lock/one", "DELETE /db/door/lock/one", func() error { return nil })
			return []float64{micros(took) / 1000}, err
		}}
}

// waitingMemory measures what a client takes that waits for a mutex, of a server that has
// done nothing else.
func waitingMemory(waiters int) *row {
	w := work{"http": overHTTP("POST /db/door/mlock/one?id=<client>&shared=true&dur=60&wait=60")}
	return &row{name: "memory of a client that waits for a mutex", conns: waiters, work: w, stateful: true, figures: []figure{{"bytes", true}},
		measure: alone(func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			var waiting float64
			began, err := t.memory()
			if err != nil {
				return nil, err
			}
			c := &crowd{work: w, conns: waiters, n: waiters}
			_, err = t.door(ctx, c, "POST /db/door/mlock/one", "POST /db/door/munlock/one", func() (err error) {
				waiting, err = t.memory()
				return err
			})
			return []float64{(waiting - began) / float64(waiters)}, err
		})}
}

// door holds a lock until a crowd waits for it, calls fn, and unlocks it. It returns how
// long it took from then until the whole crowd was let in, and leaves the lock free.
func (t *target) door(ctx context.Context, c *crowd, lock, unlock string, fn func() error) (took time.Duration, err error) {
	if err := t.call(ctx, lock+"?id=writer&dur=60"); err != nil {
		return 0, err
	}
	_, path, _ := strings.Cut(lock, " ")
	answered, err := t.allWait(ctx, c, path)
	if err == nil {
		err = fn()
	}
	if err != nil {
		return 0, err
	}
	unlocked := time.Now()
	err = errors.Join(t.call(ctx, unlock+"?id=writer"), answered())
	took = time.Since(unlocked)
	return took, errors.Join(err, t.call(ctx, unlock+"?force=true"))
}

// told measures how long it takes from the sending of a change until a client that
// watches is told, in µs and in round trips of the change itself, while others watch
// things that do not change.
func told(others int) *row {
	name := "sequence, a change is told to its watcher, beside others that watch"
	figures := []figure{{"median µs", true}, {"median in round trips of the write", true}}
	return &row{name: name, conns: others, work: work{"http": {}}, stateful: true, figures: figures,
		measure: func(ctx context.Context, b *bench, t *target) ([]float64, error) {
			const rate = 200
			n := max(int(2*rate*b.seconds.Seconds()), 1)
			path := fmt.Sprintf("/db/told-%x/sequence/", rand.Uint64()) // nothing is there yet
			calls := func(call string, c crowd) *crowd {
				c.work, c.id = work{t.speak: overHTTP(call)}, inTurn
				return &c
			}
			answered, err := t.allWait(ctx, calls("GET "+path+"<any-id>?not=none&wait=300", crowd{conns: others, n: others}), "/metrics")
			if err != nil {
				return nil, err
			}
			if err := t.call(ctx, "POST "+path+"told"); err != nil { // now it is 1, as the watcher expects first
				return nil, err
			}
			changes := calls("POST "+path+"told", crowd{conns: 1, n: n, rate: rate})
			watcher := calls("GET "+path+"told?not=<serial>&wait=60", crowd{conns: 1, n: n})
			if _, _, err := load(ctx, t, 0, changes, watcher); err != nil {
				return nil, err
			}
			var late []float64
			for i, at := range watcher.at {
				late = append(late, at-(changes.at[i]-changes.took[i]))
			}
			_, _, err = load(ctx, t, 0, calls("POST "+path+"<any-id>", crowd{conns: 64, n: others}))
			return []float64{median(late), median(late) / median(changes.took)}, errors.Join(err, answered())
		}}
}

// idleMemory measures what a connection takes that has been used once, of a
// server that has done nothing else.
func idleMemory(conns int) *row {
	return &row{name: "memory of an idle connection", conns: conns, work: one, figures: []figure{{"bytes", true}},
		measure: alone(func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			if _, _, err := load(ctx, t, 0, &crowd{work: one, conns: 1, n: 1, id: anyOf(1)}); err != nil {
				return nil, err
			}
			began, err := t.memory()
			if err != nil {
				return nil, err
			}
			g, err := newGenerator(t.addr, t.speak, &crowd{work: one, conns: conns, n: conns, id: anyOf(1)})
			if err != nil {
				return nil, err
			}
			defer g.close()
			if _, err := g.run(ctx, 0); err != nil {
				return nil, err
			}
			ended, err := t.memory()
			return []float64{(ended - began) / float64(conns)}, err
		})}
}

// call makes one call over HTTP.
func (t *target) call(ctx context.Context, call string) error {
	_, _, err := load(ctx, t, 0, &crowd{work: work{t.speak: overHTTP(call)}, conns: 1, n: 1})
	return err
}

// allWait sends a crowd's requests and returns once GET of the path says that all of them
// wait. What it returns waits for their answers.
func (t *target) allWait(ctx context.Context, c *crowd, path string) (answered func() error, err error) {
	g, err := newGenerator(t.addr, t.speak, c)
	if err != nil {
		return nil, err
	}
	waiting, end := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() {
		defer g.close()
		_, err := g.run(ctx, 0)
		end(cmp.Or(err, errors.New("not all of them wait")))
		done <- err
	}()
	return func() error { return <-done }, t.awaitWaiters(waiting, path, c.n)
}

// waitersIn finds how many wait in what GET of a lock answers, and in the metrics.
var waitersIn = regexp.MustCompile(`(?m)(?:"waiters":|^clouddragon_watchers )(\d+)`)

func (t *target) awaitWaiters(ctx context.Context, path string, n int) error {
	for ctx.Err() == nil {
		res, err := http.Get("http://" + t.addr + path)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			return err
		}
		found := waitersIn.FindSubmatch(body)
		if found == nil {
			return fmt.Errorf("GET %s does not say how many wait: %d %s", path, res.StatusCode, body)
		}
		if waiters, err := strconv.Atoi(string(found[1])); err != nil || waiters >= n {
			return err
		}
	}
	return context.Cause(ctx)
}
