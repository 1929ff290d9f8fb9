package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// pacedConns is how many connections a load at a constant rate may use at once.
const pacedConns = 256

// redisSame is Redis at the rate that our server gets.
const redisSame = "Redis, same rate"

// atRate names a measurement at half of a target's highest rate.
type atRate struct {
	row    *row
	target string
}

// paced measures the latency of each target at half of the highest rate that it
// reached in this round, and Redis at the rate of ours besides.
func (b *bench) paced(ctx context.Context, r *row, round int) error {
	type run struct {
		name string
		target
		rate float64
	}
	var runs []run
	half := map[string]float64{}
	for _, t := range b.targets(r) {
		if t.proto.request == nil {
			continue
		}
		half[t.name] = b.results.highest(r, t.name) / 2
		runs = append(runs, run{t.name, t, half[t.name]})
		if t.name == redis && half[ours] > 0 {
			runs = append(runs, run{redisSame, t, half[ours]})
		}
	}
	for _, to := range rotate(runs, round) {
		s, err := b.measure(ctx, target{to.name, to.process, to.proto, func(ctx context.Context, r *row, conns int) (load, error) {
			return loadWith(ctx, to.process.addr, conns, to.proto, pace{rate: to.rate, d: 2 * b.seconds}, r.anyID)
		}}, r, pacedConns)
		if err != nil {
			return fmt.Errorf("%s at %.0f requests a second: %w", to.name, to.rate, err)
		}
		m := atRate{r, to.name}
		b.results.paced[m] = append(b.results.paced[m], s)
		if to.name == ours && r.counted() {
			b.ours.ledger(r).acknowledged += int64(s.answers)
		}
	}
	return nil
}

// anyID is an id of the row, for a generator.
func (r *row) anyID(int) int { return 1 + rand.IntN(r.ids) }

// highest is the highest rate that a target reached in the last round.
func (r *results) highest(row *row, target string) float64 {
	var highest float64
	for _, conns := range row.conns {
		if s := r.samples[measured{row, conns, target}]; len(s) > 0 {
			highest = max(highest, s[len(s)-1].rate)
		}
	}
	return highest
}

func (r *results) pacedTable(b *strings.Builder) {
	if len(r.paced) == 0 {
		return
	}
	line := table(b, "Latency at half of the highest rate: requests a second, p50 / p99 / p99.9 in µs",
		"work", ours, empty, redis, "p99 of Redis's", redisSame, "p99 of that")
	for _, row := range r.rows {
		if !row.paced {
			continue
		}
		of := func(target string, figure func(sample) float64) []float64 {
			var xs []float64
			for _, s := range r.paced[atRate{row, target}] {
				xs = append(xs, figure(s))
			}
			return xs
		}
		tail := func(target string) []float64 { return of(target, func(s sample) float64 { return micros(s.p99) }) }
		cell := func(target string) string {
			if len(tail(target)) == 0 {
				return none
			}
			median := func(p func(sample) time.Duration) string {
				return number(summarize(of(target, func(s sample) float64 { return micros(p(s)) })).median)
			}
			return fmt.Sprintf("%s: %s / %s / %s", number(summarize(of(target, rate)).median),
				median(func(s sample) time.Duration { return s.p50 }),
				median(func(s sample) time.Duration { return s.p99 }),
				median(func(s sample) time.Duration { return s.p999 }))
		}
		line(row.name, cell(ours), cell(empty), cell(redis), ratio(tail(ours), tail(redis)),
			cell(redisSame), ratio(tail(ours), tail(redisSame)))
	}
	fmt.Fprintf(b, "\nThe requests are sent at a constant rate, over %d connections, whether or not those before are answered. A latency\n"+
		"counts from when the request was to be sent, so that a stall counts for all that was due meanwhile. A ratio under 1 is\n"+
		"to our advantage.\n", pacedConns)
}
