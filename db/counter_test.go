package db

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// counterStep is an operation on a counter and its answer. want is the value, or
// isRefused.
type counterStep struct {
	name string
	op   CounterAdd
	want int64
}

const isRefused = math.MinInt64

// unbounded is op without bounds.
func unbounded(op CounterAdd) CounterAdd {
	op.Min, op.Max = math.MinInt64, math.MaxInt64
	return op
}

func TestCounterSetAndIf(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	is := func(n int64) CounterIf { return CounterIf{Asked: true, Value: n} }
	none := CounterIf{Asked: true, None: true}
	for _, s := range []counterStep{
		{"none is not 0", unbounded(CounterAdd{Add: 1, If: is(0)}), isRefused},
		{"if none", unbounded(CounterAdd{Add: 5, Set: true, If: none}), 5},
		{"if none again", unbounded(CounterAdd{Add: 6, If: none}), isRefused},
		{"if it is that", unbounded(CounterAdd{Add: 1, If: is(5)}), 6},
		{"if it was that", unbounded(CounterAdd{Add: 1, If: is(5)}), isRefused},
		{"set to the least", unbounded(CounterAdd{Add: math.MinInt64, Set: true}), math.MinInt64},
		{"set to the most", unbounded(CounterAdd{Add: math.MaxInt64, Set: true}), math.MaxInt64},
		{"set to 0", unbounded(CounterAdd{Set: true}), 0},
		{"0 is there", unbounded(CounterAdd{Add: 1, If: none}), isRefused},
		{"set under min", CounterAdd{Add: -1, Set: true, Min: 0, Max: 9}, isRefused},
		{"set over max", CounterAdd{Add: 10, Set: true, Min: 0, Max: 9}, isRefused},
		{"set within", CounterAdd{Add: 9, Set: true, Min: 0, Max: 9}, 9},
		{"add 1", CounterAdd{Add: 1, Min: 0, Max: 9}, isRefused},
	} {
		before, beforeErr := d.Counter(Key{"a", "c"})
		s.op.Key = Key{"a", "c"}
		err := d.Do(&s.op)
		if s.want != isRefused || s.name == "set to the least" {
			if err != nil || s.op.Value != s.want {
				t.Errorf("%s: %d, %v; want %d", s.name, s.op.Value, err, s.want)
			}
			continue
		}
		if after, afterErr := d.Counter(Key{"a", "c"}); !isConflict(err) || after != before || !errors.Is(afterErr, beforeErr) {
			t.Errorf("%s: %v, and %d, %v is now %d, %v", s.name, err, before, beforeErr, after, afterErr)
		}
	}
	mustClose(t, d)
}

// A window: the first add starts it, later adds count within it, and after its end a new one
// begins.
func TestCounterEnds(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	k := Key{"a", "window"}
	add := func(op CounterAdd, want int64) {
		t.Helper()
		op = unbounded(op)
		op.Key = k
		if err := d.Do(&op); err != nil || op.Value != want {
			t.Fatalf("%+v: %d, %v; want %d", op, op.Value, err, want)
		}
	}
	wantLeft := func(want time.Duration) {
		t.Helper()
		if _, left, err := d.CounterTTL(k); left != want || err != nil {
			t.Fatalf("%v left, %v; want %v", left, err, want)
		}
	}
	minute := CounterAdd{Add: 1, TTL: time.Minute}
	add(minute, 1)
	clock.pass(20 * time.Second)
	add(minute, 2)
	wantLeft(40 * time.Second)
	add(CounterAdd{Add: 1}, 3)
	add(CounterAdd{Add: 7, Set: true}, 7)
	wantLeft(40 * time.Second)
	add(CounterAdd{Add: 1, TTL: time.Hour, Touch: true}, 8)
	wantLeft(time.Hour)
	add(CounterAdd{Add: 1, TTL: 30 * time.Second, Touch: true}, 9)
	wantLeft(30 * time.Second)
	clock.pass(30*time.Second - 1)
	wantLeft(1)
	clock.pass(1)
	if _, _, err := d.CounterTTL(k); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
	add(CounterAdd{Add: 2, If: CounterIf{Asked: true, None: true}}, 2)
	wantLeft(0)
	add(minute, 3) // it exists and does not expire
	wantLeft(0)
	add(CounterAdd{TTL: time.Minute, Touch: true}, 3)
	wantLeft(time.Minute)

	d = openAgain(t, d, &o)
	wantLeft(time.Minute)
	clock.pass(time.Minute)
	awaitNoSlots(t, d)
	mustClose(t, d)
}

// openAgain closes a database and opens it again.
func openAgain(t *testing.T, d *DB, o *Options) *DB {
	t.Helper()
	mustClose(t, d)
	return mustOpen(t, *o)
}

// awaitNoSlots waits until everything that has expired has released its slot.
func awaitNoSlots(t *testing.T, d *DB) {
	t.Helper()
	await(t, "no slot is in use", func() bool {
		used := uint64(0)
		for _, c := range d.Stats().Tables.Classes {
			used += c.Used
		}
		return used == 0
	})
}

// A batch removes a limited number of expired counters. The operations of that batch still
// find the others in their slots.
func TestCountersThatAreOverBeginAnewInTheBatchThatDoesNotRemoveThem(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	o.Segment = 1 << 20
	d := mustOpen(t, o)
	done := make(chan struct{}, 1200)
	var ops []*CounterAdd
	run := func() {
		t.Helper()
		var calls []*Call
		for _, op := range ops {
			calls = append(calls, &Call{Op: op, Done: func(*Call) { done <- struct{}{} }})
		}
		wantDone(t, "submit", d.Submit(calls...))
		for range calls {
			<-done
		}
		for _, c := range calls {
			wantDone(t, "an add", c.Err)
		}
	}
	for i := range 1200 {
		op := unbounded(CounterAdd{Key: Key{"a", fmt.Sprint(i)}, Add: 1, TTL: time.Minute})
		ops = append(ops, &op)
	}
	run()
	clock.pass(time.Minute)
	run()
	for _, op := range ops {
		if op.Value != 1 {
			t.Fatalf("counter %s is at %d: it counted on after its end", op.Key.ID, op.Value)
		}
		if _, left, err := d.CounterTTL(op.Key); left != time.Minute || err != nil {
			t.Fatalf("counter %s has %v left, %v", op.Key.ID, left, err)
		}
	}
	mustClose(t, d)
}

func TestSequenceAbove(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k := Key{"a", "s"}
	for _, s := range []struct{ n, above, want int64 }{
		{1, -7, 1}, {1, 5000, 5001}, {1, 17, 5002}, {100, 6000, 6100}, {1, 0, 6101}, {1, 6101, 6102},
		{2, math.MaxInt64 - 1, isRefused}, {1, math.MaxInt64, isRefused}, {1, 6000, 6103},
		{MaxBlock, math.MaxInt64 - MaxBlock, math.MaxInt64}, {1, 0, isRefused}, {1, 5, isRefused},
	} {
		o := SequenceAdd{Key: k, N: s.n, Above: s.above}
		before, _ := d.Sequence(k)
		err := d.Do(&o)
		switch after, _ := d.Sequence(k); {
		case s.want == isRefused && (!isConflict(err) || after != before):
			t.Errorf("%d above %d: %d, %v; %d became %d", s.n, s.above, o.Value, err, before, after)
		case s.want != isRefused && (err != nil || o.Value != s.want || after != s.want):
			t.Errorf("%d above %d: %d, %v; want %d", s.n, s.above, o.Value, err, s.want)
		}
	}
	mustClose(t, d)
}
