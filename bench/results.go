package main

import (
	"errors"
	"time"
)

// The names of what is measured, as they stand in the tables.
const (
	ours  = "clouddragon"
	empty = "empty handler"
	redis = "Redis"
	etcd  = "etcd"
	disk  = "disk"
)

// measured names what is sampled once in each round.
type measured struct {
	row    *row
	conns  int
	target string
}

// sample is one measurement of a load.
type sample struct {
	answers        int
	rate           float64       // answers a second
	p50, p99, p999 time.Duration // 0: not known
	cpu            time.Duration // of the server, an answer
	switches       float64       // context switches of the server, an answer
}

func newSample(l load, before, after usage) (sample, error) {
	if l.answers == 0 || l.took <= 0 {
		return sample{}, errors.New("no answer at all")
	}
	return sample{
		answers: l.answers, rate: float64(l.answers) / l.took.Seconds(),
		p50: l.p50, p99: l.p99, p999: l.p999,
		cpu:      (after.cpu - before.cpu) / time.Duration(l.answers),
		switches: float64(after.switches-before.switches) / float64(l.answers),
	}, nil
}

// times is one measurement of something that happens one after the other.
type times struct {
	n        int
	p50, p99 time.Duration
}

func newTimes(took []time.Duration) times {
	return times{len(took), percentile(took, 50), percentile(took, 99)}
}

// handOver names a measurement of hand-overs.
type handOver struct {
	row     *row
	waiters int
}

// results are all samples, in the order of the rounds.
type results struct {
	options   options
	rounds    int // done
	machine   []fact
	rows      []*row
	rings     []*row
	notServed map[*row]error

	samples      map[measured][]sample
	handOvers    map[handOver][]times
	trips        map[*row][]times // empty round trips beside the hand-overs
	zeroedSyncs  []times
	growingSyncs []times
	kills        int
	paced        map[atRate][]sample
	large        bool // the row of large values was measured
}

func newResults(o options, machine []fact) results {
	return results{
		options: o, machine: machine, notServed: map[*row]error{}, samples: map[measured][]sample{},
		handOvers: map[handOver][]times{}, trips: map[*row][]times{}, paced: map[atRate][]sample{},
	}
}

// of is a figure of each sample of one target, in the order of the rounds.
func (r *results) of(m measured, figure func(sample) float64) []float64 {
	var xs []float64
	for _, s := range r.samples[m] {
		xs = append(xs, figure(s))
	}
	return xs
}

func rate(s sample) float64 { return s.rate }

// micros is a duration in µs, as a number to take medians of.
func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// medianOf is the median of a figure, in µs.
func medianOf(ts []times, figure func(times) time.Duration) float64 {
	var xs []float64
	for _, t := range ts {
		xs = append(xs, micros(figure(t)))
	}
	return summarize(xs).median
}
