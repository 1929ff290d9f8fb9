package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// bench is one run: what is measured, and what came of it. It belongs to the
// main goroutine.
type bench struct {
	options
	dir     string // for all data, removed at the end
	jobs    []job
	scripts int // made so far

	ours        *server
	empty       *process
	redis, etcd *process // nil where it is not installed

	results results
}

// job is what is measured without a pause and then checked.
type job struct {
	name string
	run  func(ctx context.Context, round int) error
}

// waiters is how many wait for the lock that is handed over.
var waiters = []int{1, 100, 10_000}

// begin starts the servers, fills them and lists the jobs.
func (b *bench) begin(ctx context.Context) error {
	if err := b.startServers(ctx); err != nil {
		return err
	}
	b.results = newResults(b.options, machine(b.dir, b.server))
	for _, r := range rows(b.keys) {
		row, ring := b.only.MatchString(r.name), r.unlock != "" && b.only.MatchString(r.ringName())
		if !row && !ring {
			continue
		}
		if err := b.fill(ctx, r); err != nil {
			return fmt.Errorf("%s: fill: %w", r.name, err)
		}
		if row {
			b.results.rows = append(b.results.rows, r)
			b.jobs = append(b.jobs, job{r.name, func(ctx context.Context, round int) error { return b.row(ctx, r, round) }})
		}
		if ring {
			b.results.rings = append(b.results.rings, r)
			b.jobs = append(b.jobs, job{r.ringName(), func(ctx context.Context, _ int) error { return b.handOvers(ctx, r) }})
		}
	}
	if r := largeRow; b.only.MatchString(r.name) {
		if err := b.fill(ctx, r); err != nil {
			return fmt.Errorf("%s: fill: %w", r.name, err)
		}
		b.results.large = true
		b.jobs = append(b.jobs, job{r.name, func(ctx context.Context, round int) error { return b.large(ctx, r, round) }})
	}
	if b.only.MatchString("fdatasync") {
		b.jobs = append(b.jobs, job{"fdatasync", func(ctx context.Context, _ int) error { return b.floor(ctx) }})
	}
	if len(b.jobs) == 0 {
		return fmt.Errorf("-only %s: no row has such a name", b.only)
	}
	return nil
}

func (b *bench) startServers(ctx context.Context) (err error) {
	if b.ours, err = newServer(ctx, b.server, b.dir); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if b.empty, err = start(ctx, listening, self, "-serve-empty", "127.0.0.1:0"); err != nil {
		return err
	}
	for _, peer := range []struct {
		p     **process
		name  string
		start func(context.Context, string) (*process, error)
	}{{&b.redis, "redis", startRedis}, {&b.etcd, "etcd", startEtcd}} {
		dir := filepath.Join(b.dir, peer.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if *peer.p, err = peer.start(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// end ends all that was started.
func (b *bench) end() {
	if b.ours != nil {
		b.ours.kill()
	}
	b.empty.kill()
	b.redis.kill()
	b.etcd.kill()
}

// fill makes all ids of the row, or notes that it is not served.
func (b *bench) fill(ctx context.Context, r *row) error {
	if err := b.ours.serves(r); err != nil {
		b.results.notServed[r] = err
		return nil
	}
	if err := b.ours.fill(ctx, r); err != nil {
		return err
	}
	if b.redis != nil && r.redis != nil {
		writes := *r
		writes.method = "POST"
		_, err := loadWith(ctx, b.redis.addr, 256, overRedis(&writes), pace{n: r.ids}, func(i int) int { return i + 1 })
		return err
	}
	return nil
}

// round does each job once, beginning with another one in each round.
func (b *bench) round(ctx context.Context, round int) error {
	for _, j := range rotate(b.jobs, round*len(b.jobs)/b.rounds) {
		fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, b.rounds, j.name)
		if err := j.run(ctx, round); err != nil {
			if ctx.Err() != nil { // which ended the servers: of no interest is what that broke
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	b.results.rounds++
	return nil
}

// row gives the row's work to each target, with each number of connections,
// and then kills ours and looks whether all is there.
func (b *bench) row(ctx context.Context, r *row, round int) error {
	for _, conns := range r.conns {
		for _, t := range rotate(b.targets(r), round) {
			if t.name == etcd && conns > 1000 {
				continue // it is too slow to answer each of them in the time
			}
			s, err := b.measure(ctx, t, r, conns)
			if err != nil {
				return fmt.Errorf("%s, %d connections: %w", t.name, conns, err)
			}
			m := measured{r, conns, t.name}
			b.results.samples[m] = append(b.results.samples[m], s)
			if t.name == ours && r.counted() {
				l := b.ours.ledger(r)
				l.acknowledged += int64(s.answers)
				l.unanswered += int64(conns)
			}
		}
	}
	if r.paced {
		if err := b.paced(ctx, r, round); err != nil {
			return err
		}
	}
	if b.results.notServed[r] != nil || !r.counted() {
		return nil
	}
	b.results.kills++
	return b.ours.checkAfterKill(ctx, r)
}

// measure takes one sample.
func (b *bench) measure(ctx context.Context, t target, r *row, conns int) (sample, error) {
	before, err := usageOf(t.process.pid())
	if err != nil {
		return sample{}, err
	}
	l, err := t.load(ctx, r, conns)
	if err != nil {
		return sample{}, err
	}
	after, err := usageOf(t.process.pid())
	if err != nil {
		return sample{}, err
	}
	return newSample(l, before, after)
}

// handOvers measures the hand-over of the row's lock, beside what an empty
// round trip takes.
func (b *bench) handOvers(ctx context.Context, r *row) error {
	trips, err := roundTrips(ctx, b.empty.addr, b.seconds/2)
	if err != nil {
		return err
	}
	b.results.trips[r] = append(b.results.trips[r], newTimes(trips))
	if b.results.notServed[r] != nil {
		return nil
	}
	for _, n := range waiters {
		took, err := handOvers(ctx, b.ours.addr, r, n, b.seconds)
		if err != nil {
			return fmt.Errorf("%d waiters: %w", n, err)
		}
		h := handOver{r, n}
		b.results.handOvers[h] = append(b.results.handOvers[h], newTimes(took))
	}
	return nil
}

// floor measures what no durable write can beat.
func (b *bench) floor(ctx context.Context) error {
	zeroed, err := syncs(ctx, b.dir, floorSync, true, b.seconds/2)
	if err != nil {
		return err
	}
	growing, err := syncs(ctx, b.dir, floorSync, false, b.seconds/2)
	if err != nil {
		return err
	}
	b.results.zeroedSyncs = append(b.results.zeroedSyncs, newTimes(zeroed))
	b.results.growingSyncs = append(b.results.growingSyncs, newTimes(growing))
	return nil
}
