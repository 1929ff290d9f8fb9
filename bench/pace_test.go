package main

import (
	"testing"
	"time"
)

func TestPaceDoesNotDrift(t *testing.T) {
	p := pace{rate: 30_000, d: time.Hour} // a third of a µs is lost if each interval is rounded
	for i, want := range map[int]time.Duration{0: 0, 1: 33_333, 3: 100_000, 30_000: time.Second, 3_000_000: 100 * time.Second} {
		if got := p.at(i, 0); got != want {
			t.Errorf("request %d is due at %v, want %v", i, got, want)
		}
	}
}

func TestPaceEnds(t *testing.T) {
	for _, c := range []struct {
		what string
		p    pace
		i    int
		now  time.Duration
		want bool
	}{
		{"a rate: the last in time", pace{rate: 1000, d: time.Second}, 999, 0, false},
		{"a rate: one past the end, however early it is", pace{rate: 1000, d: time.Second}, 1000, 0, true},
		{"a rate: one that is late is still sent", pace{rate: 1000, d: time.Second}, 999, time.Minute, false},
		{"a time: before its end", pace{d: time.Second}, 1 << 30, time.Second - 1, false},
		{"a time: at its end", pace{d: time.Second}, 0, time.Second, true},
		{"a number: the last", pace{n: 10}, 9, time.Hour, false},
		{"a number: one more", pace{n: 10}, 10, 0, true},
	} {
		if got := c.p.over(c.i, c.now); got != c.want {
			t.Errorf("%s: over is %v, want %v", c.what, got, c.want)
		}
	}
}
