package lease

import (
	"fmt"
	"math/bits"
	"testing"
)

// The cost of a hand-over does not depend on the number of waiters, for a plain lock and for a semaphore of 100. It moves
// only the entries of the schedule that it changes, each at most by the schedule's depth, and writes only to the waiter
// that it grants and to the next one.
func TestHandOverCostsTheSameWithTenThousandWaiters(t *testing.T) {
	for _, limit := range []int32{1, 100} {
		for _, n := range []int{10, 10_000} {
			t.Run(fmt.Sprint(limit, " holders, ", n, " waiters"), func(t *testing.T) { handOver(t, limit, n) })
		}
	}
}

func handOver(t *testing.T, limit int32, n int) {
	r := newRig(n)
	for range limit {
		r.take(t, Request{Dur: 1, Limit: limit})
	}
	ws := make([]Waiter, n)
	for i := range ws {
		// Deadlines in no order: the first in line is anywhere in the schedule.
		r.Acquire(0, door, Request{Dur: 1, Wait: 1000 + int64(i*7919%n), Limit: limit}, &ws[i])
	}
	before := make([]Waiter, n)
	for i := range n {
		check := i%97 == 0
		if check {
			copy(before, ws)
		}
		res := r.release("", int64(i+1), false)
		if len(res.Events) != 2 || len(res.Events[1].Waiters) != 1 || res.Events[1].Waiters[0] != &ws[i] {
			t.Fatalf("hand-over %d went to another waiter", i)
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
			if j > i && ws[j] != before[j] {
				t.Fatalf("hand-over %d wrote to waiter %d", i, j)
			}
		}
		if most := 3 * bits.Len(uint(n+int(limit))); moved > most {
			t.Fatalf("hand-over %d moved %d places, want at most %d", i, moved, most)
		}
	}
	if got := r.release("", 0, true); len(got.Events) != int(limit) {
		t.Fatal("a caller waits that did not wait before")
	}
	wantEmpty(t, r)
}

func TestTenThousandReadersAreLetInByOneRelease(t *testing.T) {
	const n = 10_000
	r := newRig(n)
	token := r.take(t, Request{Owner: "w", Dur: 1})
	for i := range n {
		r.wait(t, Request{Owner: fmt.Sprint("r", i), Dur: 10, Limit: Shared})
	}
	res := r.release("", token, false)
	if len(res.Events) != n+1 {
		t.Fatalf("%d events, want %d", len(res.Events), n+1)
	}
	for i, e := range res.Events[1:] {
		if e.Kind != HolderGranted || len(e.Waiters) != 1 || e.Holder.Token != int64(i+2) || e.Waiters[0].Data != e.Holder.Owner {
			t.Fatalf("reader %d: %+v", i, e)
		}
	}
	dump(t, r.Table)
	for i := range n { // finds each among the others
		if got := r.release(fmt.Sprint("r", i), 0, false); got.Outcome != Released {
			t.Fatalf("reader %d: %+v", i, got)
		}
	}
	wantEmpty(t, r)
	if cap(r.events) > maxKeptEvents || cap(r.answered) > maxKeptEvents {
		t.Fatalf("room for %d events and %d waiters is kept", cap(r.events), cap(r.answered))
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	r := newRig(10)
	var w, v Waiter
	q := Request{Owner: ann, Dur: 10, Wait: 10}
	tests := []struct {
		name string
		do   func()
	}{
		{"acquire and release", func() {
			r.Acquire(0, door, q, nil)
			r.Release(0, door, ann, 0, false)
		}},
		{"hand-over", func() {
			r.Acquire(0, door, q, nil)
			r.Acquire(0, door, Request{Dur: 10, Wait: 10}, &w)
			r.Release(0, door, ann, 0, false)
			r.Release(0, door, "", 0, false)
		}},
		{"semaphore and a retry", func() {
			r.Acquire(0, door, Request{Dur: 10, Limit: 2}, nil)
			r.Acquire(0, door, Request{Dur: 10, Limit: 2}, nil)
			r.Acquire(0, door, Request{Owner: bob, Dur: 10, Wait: 10, Limit: 2}, &w)
			r.Acquire(0, door, Request{Owner: bob, Dur: 10, Wait: 10, Limit: 2}, &v)
			r.Release(0, door, "", 0, true)
			r.Release(0, door, bob, 0, false)
		}},
		{"expiry", func() {
			r.Acquire(0, door, q, nil)
			r.Expire(10)
		}},
		{"with a journal", func() {
			r.Mark()
			r.Acquire(0, door, q, nil)
			m := r.Mark()
			r.Acquire(0, door, Request{Dur: 10, Wait: 10}, &w)
			r.Undo(m)
			r.Release(0, door, ann, 0, false)
			r.Forget()
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
	for i := range 2 * maxSpares {
		r.Acquire(0, Key{"acc", fmt.Sprint(i)}, Request{Dur: 10}, nil)
	}
	r.expire(10)
	wantEmpty(t, r)
	if len(r.locksSpare) != maxSpares || len(r.holdersSpare) != maxSpares {
		t.Fatalf("%d spare locks and %d spare holders, want %d", len(r.locksSpare), len(r.holdersSpare), maxSpares)
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
				r.Acquire(0, door, Request{Owner: ann, Dur: 30, Wait: 15}, nil)
				r.Release(0, door, ann, 0, false)
			}
		})
	}
}

func BenchmarkHandOver(b *testing.B) {
	for _, limit := range []int32{1, 100} {
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprint("limit=", limit, "/waiters=", n), func(b *testing.B) {
				r := newRig(n)
				ws := make([]Waiter, n)
				for range limit {
					r.acquire(Request{Dur: 1 << 40, Limit: limit})
				}
				for i := range ws {
					r.Acquire(int64(i), door, Request{Dur: 1 << 40, Wait: 1 << 40, Limit: limit}, &ws[i])
				}
				b.ReportAllocs()
				for token := int64(1); b.Loop(); token++ {
					r.now++
					w := r.release("", token, false).Events[1].Waiters[0]
					r.Acquire(r.now, door, Request{Dur: 1 << 40, Wait: 1 << 40, Limit: limit}, w)
				}
			})
		}
	}
}
