package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// letIn measures how long it takes until one unlock has let in so many readers of a lock
// on disk.
func letIn(readers int) *row {
	w := work{"http": {func(b []byte, conn, _, _ int) []byte {
		return fmt.Appendf(b, "POST /db/door/lock/one?id=%d&shared=true&dur=60&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", conn)
	}, httpAnswer}}
	return &row{"lock, all that wait are let in by one unlock", readers, []figure{{"ms", true}}, w.spoken(), func(ctx context.Context, b *bench, t *target) (_ measured, err error) {
		door := "http://" + t.addr + "/db/door/lock/one"
		if _, err := ask(ctx, "POST", door+"?id=writer&dur=60"); err != nil {
			return measured{}, err
		}
		defer func() {
			_, forced := ask(ctx, "DELETE", door+"?force=true")
			err = errors.Join(err, forced)
		}()
		g, err := newGenerator(t.addr, &crowd{protocol: w[t.speak], conns: readers, n: readers, id: anyOf(1)})
		if err != nil {
			return measured{}, err
		}
		defer g.close()
		var unlocked time.Time
		opened := make(chan error, 1)
		go func() {
			err := awaitQueue(ctx, door, readers)
			unlocked = time.Now()
			if err == nil {
				_, err = ask(ctx, "DELETE", door+"?id=writer")
			}
			opened <- err
		}()
		_, err = g.run(ctx, 0)
		ended := time.Now()
		err = errors.Join(err, <-opened)
		return measured{figures: []float64{float64(ended.Sub(unlocked).Microseconds()) / 1000}}, err
	}}
}

// waitingMemory measures what a client takes that waits for a mutex, of a server that has
// done nothing else. An empty handler answers at once.
func waitingMemory(waiters int) *row {
	w := work{"http": {func(b []byte, conn, _, _ int) []byte {
		return fmt.Appendf(b, "POST /db/door/mlock/one?id=%d&shared=true&dur=60&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", conn)
	}, httpAnswer}}
	return &row{"memory of a client that waits for a mutex", waiters, []figure{{"bytes", true}}, w.spoken(), func(ctx context.Context, b *bench, t *target) (_ measured, err error) {
		alone, remove, err := b.another(ctx, t, b.dir)
		if err != nil {
			return measured{}, err
		}
		defer func() { err = errors.Join(err, remove()) }()
		mutex := "http://" + alone.addr + "/db/door/mlock/one"
		if _, err := ask(ctx, "POST", mutex+"?id=writer&dur=60"); err != nil {
			return measured{}, err
		}
		began, err := alone.memory()
		if err != nil {
			return measured{}, err
		}
		g, err := newGenerator(alone.addr, &crowd{protocol: w[t.speak], conns: waiters, n: waiters, id: anyOf(1)})
		if err != nil {
			return measured{}, err
		}
		defer g.close()
		var waiting float64
		opened := make(chan error, 1)
		go func() {
			err := awaitQueue(ctx, mutex, waiters)
			if err == nil {
				waiting, err = alone.memory()
			}
			_, unlocked := ask(ctx, "POST", "http://"+alone.addr+"/db/door/munlock/one?id=writer")
			opened <- errors.Join(err, unlocked)
		}()
		_, err = g.run(ctx, 0)
		err = errors.Join(err, <-opened)
		return measured{figures: []float64{(waiting - began) / float64(waiters)}}, err
	}}
}

// awaitQueue waits until so many wait for a lock. An empty handler has no queue.
func awaitQueue(ctx context.Context, lock string, n int) error {
	for {
		body, err := ask(ctx, "GET", lock)
		if err != nil {
			return err
		}
		var state struct{ Waiters *int }
		if json.Unmarshal(body, &state) != nil || state.Waiters == nil || *state.Waiters >= n {
			return nil
		}
	}
}

// ask makes one call. A refusal is an error.
func ask(ctx context.Context, method, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, url, res.StatusCode, body)
	}
	return body, err
}
