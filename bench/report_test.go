package main

import (
	"math"
	"strings"
	"testing"
)

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The second round was twice as slow for both.
	if got, want := ratio([]float64{30, 15, 40}, []float64{10, 5, 20}, false), "**3.00** (2.00–3.00)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := ratio([]float64{2}, []float64{1}, true), "**0.50** (0.50–0.50)"; got != want {
		t.Errorf("of times: got %s, want %s", got, want)
	}
	if got, want := ratio([]float64{math.NaN(), 4}, []float64{1, 2}, false), "**2.00** (2.00–2.00)"; got != want {
		t.Errorf("with a figure that is missing: got %s, want %s", got, want)
	}
	if got := ratio(nil, []float64{1}, false); got != "–" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestReportHasALineForEachFigure(t *testing.T) {
	rate := &row{name: "posts", conns: 64, figures: []figure{{"calls/s", false}}, found: map[string][][]float64{
		ours: {{24_680}}, before: {{12_340}},
	}}
	times := &row{name: "hand-over", conns: 2, figures: []figure{{"p50 µs", true}, {"p99 µs", true}}, found: map[string][][]float64{
		ours: {{100, 400}}, before: {{150, 300}},
	}}
	text := table([]*row{rate, times}, []*target{{name: ours}, {name: before}, {name: redis}})
	for _, line := range []string{
		"| posts | 64 | calls/s | 24,700 | **2.00** (2.00–2.00) | – |",
		"| hand-over | 2 | p50 µs | 100 | **1.50** (1.50–1.50) | – |",
		"| hand-over | 2 | p99 µs | 400 | **0.75** (0.75–0.75) | – |",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the report has no line\n%s\nin\n%s", line, text)
		}
	}
}

func TestNumbersAreRounded(t *testing.T) {
	for x, want := range map[float64]string{0.1234: "0.123", 12.345: "12.3", 123.4: "123", 1234: "1,230", 123456: "123,000", 1e6: "1,000,000", math.NaN(): "–"} {
		if got := number(x); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	}
}

func TestPercentileIsBetweenItsNeighbours(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		q    float64
		want float64
	}{
		{[]float64{7}, 99, 7},
		{[]float64{3, 1, 2}, 50, 2},
		{[]float64{4, 1, 2, 3}, 50, 2.5},
		{[]float64{100, 0}, 99, 99},
		{[]float64{1, 2}, 100, 2},
	} {
		if got := percentile(c.xs, c.q); got != c.want {
			t.Errorf("%v %% of %v: got %v, want %v", c.q, c.xs, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}
