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

// letIn measures how long it takes until one unlock of a lock on disk has let in all
// readers that wait for it.
func letIn(readers int) *row {
	w := work{"http": overHTTP("POST /db/door/lock/one?id=<client>&shared=true&dur=60&wait=60")}
	return &row{name: "lock, all that wait are let in by one unlock", conns: readers, work: w, stateful: true, figures: []figure{{"ms", true}},
		measure: func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			open, err := t.shut(ctx, &crowd{work: w, conns: readers, n: readers}, "POST /db/door/lock/one", "DELETE /db/door/lock/one")
			if err != nil {
				return nil, err
			}
			took, err := open()
			return []float64{micros(took) / 1000}, err
		}}
}

// waitingMemory measures how much memory a server that has done nothing else needs for a
// client that waits for a mutex.
func waitingMemory(waiters int) *row {
	w := work{"http": overHTTP("POST /db/door/mlock/one?id=<client>&shared=true&dur=60&wait=60")}
	return &row{name: "memory of a client that waits for a mutex", conns: waiters, work: w, stateful: true, figures: []figure{{"bytes", true}},
		measure: alone(func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			var open func() (time.Duration, error)
			grown, err := t.growth(func() (err error) {
				open, err = t.shut(ctx, &crowd{work: w, conns: waiters, n: waiters}, "POST /db/door/mlock/one", "POST /db/door/munlock/one")
				return err
			})
			if err != nil {
				return nil, err
			}
			_, err = open()
			return []float64{grown / float64(waiters)}, err
		})}
}

// shut holds a lock and returns once a whole crowd waits for it. open unlocks it, leaves it
// free, and returns how long it took until the whole crowd was let in.
func (t *target) shut(ctx context.Context, c *crowd, lock, unlock string) (open func() (time.Duration, error), err error) {
	if err := t.call(ctx, lock+"?id=writer&dur=60"); err != nil {
		return nil, err
	}
	_, path, _ := strings.Cut(lock, " ")
	answered, err := t.allWait(ctx, c, path)
	return func() (time.Duration, error) {
		unlocked := time.Now()
		err := errors.Join(t.call(ctx, unlock+"?id=writer"), answered())
		return time.Since(unlocked), errors.Join(err, t.call(ctx, unlock+"?force=true"))
	}, err
}

// told measures the time from the sending of a change until a watching client is told of
// it, in µs and in round trips of the change itself, while others watch sequences that do not
// change.
func told(others int) *row {
	name := "sequence, a change is told to its watcher, beside others that watch"
	figures := []figure{{"median µs", true}, {"median in round trips of the write", true}}
	return &row{name: name, conns: others, work: work{"http": {}}, stateful: true, figures: figures,
		measure: func(ctx context.Context, b *bench, t *target) ([]float64, error) {
			const rate = 200
			n := max(int(2*rate*b.seconds.Seconds()), 1)
			path := fmt.Sprintf("/db/told-%x/sequence/", rand.Uint64()) // it has no sequences yet
			calls := func(call string, c crowd) *crowd {
				c.work, c.id = work{t.speak: overHTTP(call)}, inTurn
				return &c
			}
			answered, err := t.allWait(ctx, calls("GET "+path+"<any-id>?not=none&wait=300", crowd{conns: others, n: others}), "/metrics")
			if err != nil {
				return nil, err
			}
			if err := t.call(ctx, "POST "+path+"told"); err != nil { // now it is 1, which the watcher expects first
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

// idleMemory measures how much memory a server that has done nothing else needs for a
// connection that has been used once.
func idleMemory(conns int) *row {
	return &row{name: "memory of an idle connection", conns: conns, work: one, figures: []figure{{"bytes", true}},
		measure: alone(func(ctx context.Context, _ *bench, t *target) ([]float64, error) {
			if _, _, err := load(ctx, t, 0, &crowd{work: one, conns: 1, n: 1, id: anyOf(1)}); err != nil {
				return nil, err
			}
			var g *generator
			grown, err := t.growth(func() (err error) {
				if g, err = newGenerator(t.addr, t.speak, &crowd{work: one, conns: conns, n: conns, id: anyOf(1)}); err == nil {
					_, err = g.run(ctx, 0)
				}
				return err
			})
			if g != nil {
				g.close()
			}
			return []float64{grown / float64(conns)}, err
		})}
}

// call makes one call over HTTP.
func (t *target) call(ctx context.Context, call string) error {
	_, _, err := load(ctx, t, 0, &crowd{work: work{t.speak: overHTTP(call)}, conns: 1, n: 1})
	return err
}

// allWait sends a crowd's requests and returns once GET of the path shows that all of them
// wait. answered waits for their answers.
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
	return func() error { return <-done }, t.poll(waiting, path, func(body []byte) (bool, error) {
		found := waitersIn.FindSubmatch(body)
		if found == nil {
			return false, errors.New("it does not say how many wait")
		}
		waiters, err := strconv.Atoi(string(found[1]))
		return waiters >= c.n, err
	})
}

// waitersIn matches the number of waiters in the answer to GET of a lock, and in the metrics.
var waitersIn = regexp.MustCompile(`(?m)(?:"waiters":|^clouddragon_watchers )(\d+)`)

// get sends GET for a path.
func (t *target) get(ctx context.Context, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.addr+path, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(r)
}

// poll sends GET for a path until done returns true for the body of the answer.
func (t *target) poll(ctx context.Context, path string, done func(body []byte) (bool, error)) error {
	for ctx.Err() == nil {
		answer, err := t.get(ctx, path)
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		body, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil {
			return err
		}
		if ok, err := done(body); ok || err != nil {
			if err != nil {
				err = fmt.Errorf("GET %s: %w: %s, %s", path, err, answer.Status, body)
			}
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return context.Cause(ctx)
}
