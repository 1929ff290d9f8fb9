package main

import (
	"math"
	"slices"
	"time"
)

// summary is what is said of a figure that was taken several times.
type summary struct {
	median, min, max float64
}

func summarize(xs []float64) summary {
	if len(xs) == 0 {
		return summary{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(xs))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return summary{median, s[0], s[len(s)-1]}
}

// ratios divides round by round, so that what slows a whole round cancels out.
func ratios(a, b []float64) []float64 {
	n := min(len(a), len(b))
	r := make([]float64, 0, n)
	for i := range n {
		r = append(r, a[i]/b[i])
	}
	return r
}

// percentile returns the smallest time that q percent of the times do not
// exceed, 0 for none. It sorts them.
func percentile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	rank := int(math.Ceil(q*float64(len(times))/100 - 1e-9)) // 99.9 is not exact
	return times[max(rank, 1)-1]
}

// rotate returns xs beginning with the one that round starts with.
func rotate[T any](xs []T, round int) []T {
	if len(xs) == 0 {
		return nil
	}
	at := round % len(xs)
	return slices.Concat(xs[at:], xs[:at])
}
