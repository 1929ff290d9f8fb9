package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestSummaryIsMedianAndExtremes(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want summary
	}{
		{[]float64{5}, summary{5, 5, 5}},
		{[]float64{9, 1, 4}, summary{4, 1, 9}},
		{[]float64{8, 2, 4, 6}, summary{5, 2, 8}},
	} {
		before := slices.Clone(c.xs)
		if got := summarize(c.xs); got != c.want {
			t.Errorf("summarize(%v) = %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(c.xs, before) {
			t.Errorf("summarize changed the order of %v, by which rounds are paired, to %v", before, c.xs)
		}
	}
	if got := summarize(nil); !math.IsNaN(got.median) {
		t.Errorf("the median of nothing is %v, want NaN", got.median)
	}
}

func TestRatiosPairRoundWithRound(t *testing.T) {
	// A round in which the whole machine is slow does not change the ratio.
	got := ratios([]float64{90, 9, 45}, []float64{100, 10, 50})
	if want := []float64{.9, .9, .9}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPercentileIsARealValue(t *testing.T) {
	var times []time.Duration
	for i := 1000; i >= 1; i-- {
		times = append(times, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 50: 500, 99: 990, 99.9: 999, 100: 1000} {
		if got := percentile(times, q); got != want {
			t.Errorf("p%v of 1..1000 = %d, want %d", q, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("p50 of nothing = %d, want 0", got)
	}
}

func TestRotationBeginsElsewhereEachRound(t *testing.T) {
	xs := []string{"a", "b", "c"}
	for round, want := range [][]string{{"a", "b", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"a", "b", "c"}} {
		if got := rotate(xs, round); !slices.Equal(got, want) {
			t.Errorf("round %d: got %v, want %v", round, got, want)
		}
	}
}
