package main

import (
	"slices"
	"testing"
)

func TestTicksAreRoundAndReachTheFigures(t *testing.T) {
	for _, c := range []struct {
		what        string
		least, most float64
		base        float64 // 0: linear
		want        []float64
	}{
		{"linear", 3, 48_100, 0, []float64{0, 10_000, 20_000, 30_000, 40_000, 50_000}},
		{"linear, at a tick", 3, 200, 0, []float64{0, 50, 100, 150, 200}},
		{"linear, a fraction", 0.1, 0.7, 0, []float64{0, 0.2, 0.4, 0.6000000000000001, 0.8}},
		{"linear, nothing", 0, 0, 0, []float64{0, 1}},
		{"decades", 7, 4200, 10, []float64{1, 10, 100, 1000, 10_000}},
		{"decades, at both ends", 1, 1000, 10, []float64{1, 10, 100, 1000}},
		{"every second decade", 1, 10_000_000, 10, []float64{1, 100, 10_000, 1_000_000, 100_000_000}},
		{"bytes", 1, 8 << 20, 1024, []float64{1, 1 << 10, 1 << 20, 1 << 30}},
		{"one figure", 10, 10, 10, []float64{10}},
	} {
		got := linearTicks(c.most)
		if c.base > 0 {
			got = logTicks(c.least, c.most, c.base)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}

func TestTicksAreFew(t *testing.T) {
	for most := 1.0; most < 1e8; most *= 1.1 {
		if got := linearTicks(most); len(got) < 3 || len(got) > ticksMost+1 || got[len(got)-1] < most {
			t.Errorf("to %v: %v", most, got)
		}
		if got := logTicks(1, most, 2); len(got) > ticksMost || got[len(got)-1] < most*(1-1e-6) {
			t.Errorf("to %v, in powers of 2: %v", most, got)
		}
	}
}

func TestFiguresStandInProportion(t *testing.T) {
	linear := newAxis([]float64{20, 100}, 0, 300, 100, short)
	decades := newAxis([]float64{1, 100}, 10, 0, 200, short)
	for _, c := range []struct{ got, want float64 }{
		{linear.place(0), 300}, {linear.place(50), 200}, {linear.place(100), 100},
		{decades.place(1), 0}, {decades.place(10), 100}, {decades.place(100), 200},
		{newAxis([]float64{10}, 10, 7, 9, short).place(10), 7}, // not NaN
	} {
		if d := c.got - c.want; d > 1e-6 || d < -1e-6 {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestLabelsAreShort(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.5: "0.5", 64: "64", 1000: "1k", 2500: "2.5k", 10_000_000: "10M"} {
		if got := short(x); got != want {
			t.Errorf("short(%v) = %q, want %q", x, got, want)
		}
	}
	for x, want := range map[float64]string{1: "1 B", 1024: "1 KiB", 1536: "1.5 KiB", 8 << 20: "8 MiB", 4 << 30: "4 GiB"} {
		if got := bytesShort(x); got != want {
			t.Errorf("bytesShort(%v) = %q, want %q", x, got, want)
		}
	}
}
