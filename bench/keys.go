package main

import (
	"context"
	"errors"
	"math"
	"os"
	"syscall"
	"time"
)

// page lists 100 keys, starting with a random one.
var page = work{
	"http": overHTTP("GET /db/small/kv?limit=100&after=<any-id>"),
	"etcd": overHTTP("POST /v3/kv/range\n\n" + `{"key":"<any-id>","range_end":"` + inBase64("\x00") + `","limit":100,"keys_only":true}`),
}

// keys measures many keys on a server that has nothing else: how fast they are created, how
// long pages of 100 take while 256 connections write, how long starts take, and the memory
// for each key after a start.
func keys(n int) *row {
	r := &row{name: "keys: " + thousands(n) + " values of 64 B", conns: 256, work: set, stateful: true, figures: []figure{
		{"created/s", false}, {"p50 ms of a page of 100", true}, {"p99 ms of a page of 100", true},
		{"s of a start after a stop", true}, {"bytes of memory for each, once started", true}, {"s of a start after a kill", true},
	}}
	r.measure = alone(func(ctx context.Context, b *bench, t *target) ([]float64, error) {
		const prime = 15_485_863 // spreads the keys, so that they are not created in order
		p50, p99 := math.NaN(), math.NaN()
		var took time.Duration
		var stopped float64
		grown, err := t.growth(func() (err error) {
			took, _, err = load(ctx, t, 0, &crowd{work: set, conns: r.conns, depth: 16, n: n, id: func(i int) int { return 1 + i*prime%n }})
			if _, can := page[t.speak]; can && err == nil {
				pages, sets := &crowd{work: page, conns: 1, id: anyOf(n)}, &crowd{work: set, conns: r.conns, id: anyOf(n)}
				_, _, err = load(ctx, t, 4*b.seconds, pages, sets)
				p50, p99 = median(pages.took)/1000, percentile(pages.took, 99)/1000
				if t.name == before && errors.Is(err, errRefused) { // it is older than the route
					p50, p99 = math.NaN(), math.NaN()
					_, _, err = load(ctx, t, 4*b.seconds, &crowd{work: set, conns: r.conns, id: anyOf(n)})
				}
			}
			if err == nil {
				stopped, err = restart(ctx, t, syscall.SIGTERM)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		killed, err := restart(ctx, t, os.Kill)
		return []float64{float64(n) / took.Seconds(), p50, p99, stopped, grown / float64(n), killed}, err
	})
	return r
}

// restart ends a server and returns how many seconds it takes until it serves again.
func restart(ctx context.Context, t *target, with os.Signal) (float64, error) {
	if err := t.end(with); err != nil {
		return 0, err
	}
	began := time.Now()
	err := t.launch(ctx)
	return time.Since(began).Seconds(), err
}
