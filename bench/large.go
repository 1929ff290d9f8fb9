package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// largeRow is the work of which each value is as large as the default allows.
var largeRow = &row{name: "kv set 8 MiB, 16 ids", conns: []int{1, 4}, method: "POST", acc: "huge", api: "kv", ids: 16, value: 8 << 20,
	redis: []string{}}

// large measures the row of large values beside the disk's own speed: the same
// bytes, written to the end of a file and synced value by value.
func (b *bench) large(ctx context.Context, r *row, round int) error {
	type run struct {
		target string
		conns  int
		load   func(conns int) (load, error)
	}
	with := func(addr string, p protocol) func(int) (load, error) {
		return func(conns int) (load, error) { return loadWith(ctx, addr, conns, p, pace{d: 2 * b.seconds}, r.anyID) }
	}
	runs := []run{{disk, 1, func(int) (load, error) {
		took, err := syncs(ctx, b.dir, r.value, false, 2*b.seconds)
		return load{answers: len(took), took: sum(took)}, err
	}}}
	for _, conns := range r.conns {
		if b.results.notServed[r] == nil {
			runs = append(runs, run{ours, conns, with(b.ours.addr, overHTTP(r))})
		}
		if b.redis != nil {
			runs = append(runs, run{redis, conns, with(b.redis.addr, overRedis(r))})
		}
	}
	for _, to := range rotate(runs, round) {
		l, err := to.load(to.conns)
		if err != nil {
			return fmt.Errorf("%s, %d connections: %w", to.target, to.conns, err)
		}
		s, err := newSample(l, usage{}, usage{})
		if err != nil {
			return fmt.Errorf("%s, %d connections: %w", to.target, to.conns, err)
		}
		m := measured{r, to.conns, to.target}
		b.results.samples[m] = append(b.results.samples[m], s)
		if to.target == ours {
			b.ours.ledger(r).acknowledged += int64(s.answers)
		}
	}
	if b.results.notServed[r] != nil {
		return nil
	}
	b.results.kills++
	return b.ours.checkAfterKill(ctx, r)
}

func sum(took []time.Duration) (all time.Duration) {
	for _, t := range took {
		all += t
	}
	return all
}

func (r *results) largeTable(b *strings.Builder) {
	if !r.large {
		return
	}
	line := table(b, "Values of 8 MiB: MiB a second", "connections", ours, "the disk", "of the disk", redis, "of Redis")
	for _, conns := range largeRow.conns {
		of := func(target string, conns int) []float64 {
			return r.of(measured{largeRow, conns, target}, func(s sample) float64 { return s.rate * float64(largeRow.value>>20) })
		}
		mine, theDisk := rates(of(ours, conns)), of(disk, 1)
		if err := r.notServed[largeRow]; err != nil {
			mine = "not served (" + err.Error() + ")"
		}
		line(strconv.Itoa(conns), mine, rates(theDisk), ratio(of(ours, conns), theDisk), rates(of(redis, conns)), ratio(of(ours, conns), of(redis, conns)))
	}
	b.WriteString("\nThe disk: the same bytes written to the end of a file, with an fdatasync behind each 8 MiB.\n")
}
