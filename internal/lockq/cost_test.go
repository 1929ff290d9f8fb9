package lockq

import (
	"fmt"
	"math/bits"
	"testing"
)

// With n waiters a hand-over moves at most the two entries that it touches through the schedule, each by its depth,
// and writes to no waiter but those two.
func TestHandOverCostsTheSameWithTenThousandWaiters(t *testing.T) {
	for _, n := range []int{10, 10_000} {
		r := newRig(n)
		r.acquire(Request{Dur: 1})
		ws := make([]Waiter, n)
		for i := range ws {
			// Deadlines in no order: the first in line is anywhere in the schedule.
			r.Acquire(0, door, Request{Dur: 1, Wait: 1000 + int64(i*7919%n)}, &ws[i])
		}
		before := make([]Waiter, n)
		for i := range n {
			check := i%97 == 0
			if check {
				copy(before, ws)
			}
			if res := r.release("", 0, true); res.Waiter != &ws[i] {
				t.Fatalf("hand-over %d of %d went to another waiter", i, n)
			}
			if !check {
				continue
			}
			moved := 0
			for j := range ws {
				if ws[j].place != before[j].place {
					moved++
				}
				before[j].place = ws[j].place
				if j > i+1 && ws[j] != before[j] {
					t.Fatalf("hand-over %d of %d wrote to waiter %d", i, n, j)
				}
			}
			if most := 2 * bits.Len(uint(n)); moved > most {
				t.Fatalf("hand-over %d of %d moved %d places, want at most %d", i, n, moved, most)
			}
		}
		if got := r.release("", 0, true); got.Waiter != nil {
			t.Fatal("somebody waits who did not")
		}
		wantEmpty(t, r)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	r := newRig(10)
	var w Waiter
	q := Request{Owner: "ann", Dur: 10, Wait: 10}
	tests := []struct {
		name string
		do   func()
	}{
		{"acquire and release", func() {
			r.Acquire(0, door, q, nil)
			r.Release(0, door, "ann", 0, false)
		}},
		{"hand-over", func() {
			r.Acquire(0, door, q, nil)
			r.Acquire(0, door, Request{Dur: 10, Wait: 10}, &w)
			r.Release(0, door, "ann", 0, false)
			r.Release(0, door, "", 0, false)
		}},
		{"expiry", func() {
			r.Acquire(0, door, q, nil)
			r.Expire(10)
		}},
	}
	for _, tt := range tests {
		if n := testing.AllocsPerRun(100, tt.do); n != 0 {
			t.Errorf("%s: %v allocations, want 0", tt.name, n)
		}
		wantEmpty(t, r)
	}
}

func TestBurstOfLocksIsNotKept(t *testing.T) {
	r := newRig(10)
	for i := range 2 * maxSpare {
		r.Acquire(0, Key{"acc", fmt.Sprint(i)}, Request{Dur: 10}, nil)
	}
	r.expire(10)
	wantEmpty(t, r)
	if len(r.spare) != maxSpare {
		t.Fatalf("%d spare locks, want %d", len(r.spare), maxSpare)
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	for _, held := range []int{0, 100_000} {
		b.Run(fmt.Sprint("held=", held), func(b *testing.B) {
			r := newRig(0)
			for i := range held {
				r.Acquire(int64(i), Key{"acc", fmt.Sprint(i)}, Request{Dur: 1 << 40}, nil)
			}
			b.ReportAllocs()
			for b.Loop() {
				r.Acquire(0, door, Request{Owner: "ann", Dur: 30, Wait: 15}, nil)
				r.Release(0, door, "ann", 0, false)
			}
		})
	}
}

func BenchmarkHandOver(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint("waiters=", n), func(b *testing.B) {
			r := newRig(n)
			ws := make([]Waiter, n)
			r.acquire(Request{Dur: 10})
			for i := range ws {
				r.Acquire(int64(i), door, Request{Dur: 1 << 40, Wait: 1 << 40}, &ws[i])
			}
			b.ReportAllocs()
			for b.Loop() {
				r.now++
				w := r.release("", 0, true).Waiter
				r.Acquire(r.now, door, Request{Dur: 1 << 40, Wait: 1 << 40}, w)
			}
		})
	}
}
