package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The second round was twice as slow for both.
	if got, want := ratio([]float64{30, 15, 40}, []float64{10, 5, 20}, false), "**3.00** (2.00–3.00)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := ratio([]float64{2}, []float64{1}, true), "**0.50** (0.50–0.50)"; got != want {
		t.Errorf("of times: got %s, want %s", got, want)
	}
	if got := ratio(nil, []float64{1}, false); got != "–" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestReportHasALineForEachFigure(t *testing.T) {
	rate := &row{name: "posts", conns: 64, figures: requests}
	times := &row{name: "hand-over", conns: 2, figures: []figure{{"p50 µs", true}, {"p99 µs", true}}}
	r := report{rows: []*row{rate, times}, names: []string{ours, before, redis}, samples: map[sample][]measured{}}
	r.add(rate, ours, measured{[]float64{24_680}, 20})
	r.add(rate, before, measured{[]float64{12_340}, 40})
	r.add(times, ours, measured{[]float64{100, 400}, 0})
	r.add(times, before, measured{[]float64{150, 300}, 0})
	text := r.markdown()
	for _, line := range []string{
		"| posts | 64 | requests/s | 24,700 | **2.00** (2.00–2.00) | – | clouddragon 20, before 40, of before **2.00** (2.00–2.00) |",
		"| hand-over | 2 | p50 µs | 100 | **1.50** (1.50–1.50) | – |  |",
		"| hand-over | 2 | p99 µs | 400 | **0.75** (0.75–0.75) | – |  |",
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

func TestPercentileIsATimeThatWasMeasured(t *testing.T) {
	var times []time.Duration
	for i := 1000; i > 0; i-- {
		times = append(times, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{50: 500, 99: 990, 99.9: 999, 100: 1000} {
		if got := percentile(times, q); got != want {
			t.Errorf("%v %%: got %v, want %v", q, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestCPUTimeIsReadBehindAnyName(t *testing.T) {
	got, err := parseCPU([]byte("1 (a) b 7 8) S 4 5 6 7 8 9 10 11 12 13 150 25 16 17"))
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	if _, err := parseCPU([]byte("1 (a) S 4")); err == nil {
		t.Error("a short line is no error")
	}
}
