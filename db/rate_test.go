package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

var (
	pace = Key{"a", "pace"}
	slow = Rate{Limit: 60, Per: time.Minute, Burst: 3} // three at once, then one a second
)

func take(d *DB, r Rate, cost int64) (int64, error) {
	s, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: r, Cost: cost})
	return s.Left, err
}

// wantTaken counts cost, after which so many are left.
func wantTaken(t *testing.T, d *DB, r Rate, cost, left int64) {
	t.Helper()
	if got, err := take(d, r, cost); got != left || err != nil {
		t.Fatalf("%d of %+v: %d are left, %v; want %d", cost, r, got, err, left)
	}
}

func wantRefused(t *testing.T, err error, left int64, retry time.Duration) {
	t.Helper()
	var refused *RateError
	if !errors.As(err, &refused) || refused.State.Left != left || refused.Retry != retry {
		t.Fatalf("got %v (%+v), want it refused with %d left, and allowed in %v", err, refused, left, retry)
	}
}

func wantLeft(t *testing.T, d *DB, r Rate, left int64) {
	t.Helper()
	if s, err := d.ReadRate(pace, r); s.Left != left || err != nil {
		t.Fatalf("%+v are left, %v; want %d", s, err, left)
	}
}

func awaitPace(t *testing.T, d *DB, n int64) {
	t.Helper()
	for {
		if _, err := d.ReadRate(pace, slow); err != nil { // a batch
			t.Error(err)
			return
		}
		if d.rates.waiting.Load() == n {
			return
		}
		runtime.Gosched()
	}
}

// paced has a call wait for the pace, as the n-th in the queue.
func paced(t *testing.T, d *DB, ctx context.Context, n int64, cost int64) chan error {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		_, err := d.TakeRate(ctx, RateRequest{Key: pace, Rate: slow, Cost: cost, Wait: time.Minute})
		got <- err
	}()
	awaitPace(t, d, n)
	return got
}

func TestRateAllowsTheBurstAndThenItsPace(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantLeft(t, d, slow, 3)
	wantTaken(t, d, slow, 1, 2)
	wantTaken(t, d, slow, 2, 0)
	_, err := take(d, slow, 1)
	wantRefused(t, err, 0, time.Second)
	_, err = take(d, slow, 3)
	wantRefused(t, err, 0, 3*time.Second)
	clock.pass(time.Second - 1)
	_, err = take(d, slow, 1)
	wantRefused(t, err, 0, 1)
	clock.pass(1)
	wantLeft(t, d, slow, 1)
	wantTaken(t, d, slow, 1, 0)
	clock.pass(time.Hour)
	wantLeft(t, d, slow, 3)
	mustClose(t, d)
}

func TestRateThatIsFullAgainTakesNoRoom(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	for i := range 1000 {
		_, err := d.TakeRate(context.Background(), RateRequest{Key: Key{"a", fmt.Sprint(i)}, Rate: slow, Cost: 1})
		wantDone(t, "a call", err)
		clock.pass(time.Second)
	}
	wantLeft(t, d, slow, 3)
	st := d.Stats().Tables
	for class, c := range st.Classes {
		if c.Capacity > 4*4096/uint64(len(st.Classes)) || c.Used > 0 {
			t.Errorf("table %d after 1000 rates, one at a time: %+v", class, c)
		}
	}
	// Over a restart too.
	wantTaken(t, d, slow, 3, 0)
	mustClose(t, d)
	clock.pass(3 * time.Second)
	d = mustOpen(t, tiny(fs, clock))
	wantLeft(t, d, slow, 3)
	if n := used(d.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use after a restart", n)
	}
	mustClose(t, d)
}

// The slot of a rate that is full again may be given back in the very batch in which
// the next call, which waited until then, is counted.
func TestCallThatWaitsUntilARateIsFullIsCounted(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	for range 20 {
		wantTaken(t, d, slow, 3, 0)
		next := paced(t, d, context.Background(), 1, 3)
		clock.pass(3 * time.Second)
		d.writer.Wake()
		wantDone(t, "the next", soon(t, "the next", next))
		wantLeft(t, d, slow, 0)
		clock.pass(time.Hour)
	}
	mustClose(t, d)
}

// Another limit goes on from the same instant.
func TestRateWithAnotherLimitGoesOn(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0) // a backlog of 3 s
	wantLeft(t, d, Rate{Limit: 10, Per: 10 * time.Second, Burst: 10}, 7)
	wantLeft(t, d, Rate{Limit: 10, Per: time.Second, Burst: 10}, 0)
	wantTaken(t, d, Rate{Limit: 1, Per: time.Hour, Burst: 2}, 1, 0)
	mustClose(t, d)
}

func TestRateSurvivesARestart(t *testing.T) {
	for _, how := range []string{"close", "kill", "power cut"} {
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		wantTaken(t, d, slow, 3, 0)
		next := fs
		switch how {
		case "kill":
			next = fs.Reopen()
		case "power cut":
			next = fs.Cut(fs.Len()).Nothing()
		}
		mustClose(t, d)
		clock.restart()
		d = mustOpen(t, tiny(next, clock))
		wantLeft(t, d, slow, 0)
		clock.pass(time.Second)
		wantLeft(t, d, slow, 1)
		mustClose(t, d)
	}
}

func TestCallsThatWaitForARateAreServedInOrder(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantTaken(t, d, slow, 3, 0)
	first := paced(t, d, context.Background(), 1, 2)
	second := paced(t, d, context.Background(), 2, 1)
	clock.pass(time.Second)
	d.writer.Wake()
	// One is allowed now, but the first wants two, and nobody overtakes it.
	wantLeft(t, d, slow, 0)
	_, err := take(d, slow, 1)
	wantRefused(t, err, 0, 3*time.Second)
	awaitPace(t, d, 2)
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the first", soon(t, "the first", first))
	awaitPace(t, d, 1)
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the second", soon(t, "the second", second))
	wantLeft(t, d, slow, 0)
	mustClose(t, d)
}

// With the machine's clock nobody but the writer itself sees that it is time.
func TestWriterWakesUpWhenARateAllowsACall(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Clock = nil
	d := mustOpen(t, o)
	fast := Rate{Limit: 100, Per: time.Second, Burst: 1}
	for range 3 {
		_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: fast, Cost: 1, Wait: time.Hour})
		wantDone(t, "a paced call", err)
	}
	mustClose(t, d)
}

func TestCallThatCannotBeServedInTimeTakesNoPlace(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0)
	ctx, hangUp := context.WithCancel(context.Background())
	first := paced(t, d, ctx, 1, 3)
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: 4*time.Second - 1})
	wantRefused(t, err, 0, 4*time.Second)
	awaitPace(t, d, 1)
	// An empty burst of another rate would allow this at once, but the first is before it.
	other := Rate{Limit: 1000, Per: time.Second, Burst: 1_000_000}
	_, err = d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: other, Cost: 1, Wait: time.Second})
	wantRefused(t, err, 0, 3*time.Second)
	hangUp()
	if err := soon(t, "who hung up", first); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustClose(t, d)
}

func TestWhoHangsUpGivesItsPlaceOfARateBack(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantTaken(t, d, slow, 3, 0)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := paced(t, d, ctx, 1, 3)
	second := paced(t, d, context.Background(), 2, 1)
	hangUp(gone)
	if err := soon(t, "who hung up", first); !errors.Is(err, gone) {
		t.Error(err)
	}
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the second", soon(t, "the second", second))
	mustClose(t, d)
}

func TestWhoHangsUpWhileItIsCountedGivesItBack(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	wantTaken(t, d, slow, 3, 0)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := paced(t, d, ctx, 1, 3)
	g := barrierAt(fs)
	clock.pass(3 * time.Second)
	d.writer.Wake()
	<-g.reached // what it counts is on its way to disk
	hangUp(gone)
	g.open()
	if err := soon(t, "who hung up", first); !errors.Is(err, gone) {
		t.Error(err)
	}
	wantLeft(t, d, slow, 3)
	if n := used(d.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
	mustClose(t, d)
}

func TestForgottenRateLetsInWhoWaits(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0)
	first := paced(t, d, context.Background(), 1, 3)
	second := paced(t, d, context.Background(), 2, 1)
	wantDone(t, "forgetting", d.ForgetRate(pace))
	wantDone(t, "the first", soon(t, "the first", first))
	awaitPace(t, d, 1)
	d.Drain()
	if err := soon(t, "the second", second); !errors.Is(err, ErrStopping) {
		t.Error(err)
	}
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: time.Hour})
	if !errors.Is(err, ErrStopping) {
		t.Errorf("who comes to wait later: %v", err)
	}
	if n := d.rates.limit.Waiting(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
	mustClose(t, d)
}

func TestNoMoreWaitForARateThanMay(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Waiters = 1
	d := mustOpen(t, o)
	wantTaken(t, d, slow, 3, 0)
	paced(t, d, context.Background(), 1, 3)
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: time.Hour})
	if !errors.Is(err, ErrWaiters) {
		t.Errorf("a second: %v", err)
	}
	mustClose(t, d)
}

// rateModel is a rate with a list of waiting calls, the plainest that there can be.
type rateModel struct {
	now, at int64
	queue   []*rateStep
}

type rateStep struct {
	RateTake
	call     Call
	answered bool
}

// take returns how long the call has to wait: negative if it is refused.
func (m *rateModel) take(s *rateStep) (waits bool, err bool) {
	at, turn := max(m.at, m.now), m.now
	for _, q := range m.queue {
		turn = max(turn, at-q.most(q.Cost))
		at = max(at, turn) + q.RateTake.Rate.adds(q.Cost)
	}
	turn = max(turn, at-s.most(s.Cost))
	switch {
	case s.most(s.Cost) < 0, turn-m.now > int64(s.Wait), len(m.queue) > 0 && s.Wait == 0:
		return false, true
	case len(m.queue) == 0 && turn == m.now:
		m.at = at + s.RateTake.Rate.adds(s.Cost)
		return false, false
	}
	m.queue = append(m.queue, s)
	return true, false
}

// serve counts all that are allowed by now.
func (m *rateModel) serve() (served []*rateStep) {
	for len(m.queue) > 0 && m.at-max(0, m.queue[0].most(m.queue[0].Cost)) <= m.now {
		s := m.queue[0]
		m.queue = m.queue[1:]
		m.at = max(m.at, m.now) + s.RateTake.Rate.adds(s.Cost)
		served = append(served, s)
	}
	return served
}

// A random life of a rate, with undone steps among it, agrees with the model.
func TestRateAgreesWithItsModel(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		clock := newTestClock()
		d := mustOpen(t, tiny(memdisk.New(), clock))
		rates := []Rate{slow, {10, time.Minute, 10}, {1000, time.Second, 1000}}[:1+rnd.IntN(3)]
		m := &rateModel{now: timeOf(d)}
		done := make(chan *rateStep, 10_000)
		check := func(what string, served []*rateStep) {
			t.Helper()
			for _, s := range served {
				got := soon(t, what, done)
				if got.call.Err != nil || !slices.Contains(served, got) {
					t.Fatalf("seed %d, %s: %+v was answered %v, want %+v to be served", seed, what, got.RateRequest, got.call.Err, s.RateRequest)
				}
			}
		}
		for i := range 300 {
			r := rates[rnd.IntN(len(rates))]
			what := fmt.Sprint("step ", i)
			switch rnd.IntN(10) {
			case 0, 1, 2:
				clock.pass(time.Duration(rnd.Int64N(int64(2 * time.Second))))
				m.now = timeOf(d)
				_, err := d.ReadRate(pace, r) // a batch, which serves first
				wantDone(t, "reading", err)
				check(what+", time goes by", m.serve())
			case 3:
				if n := len(m.queue); n > 0 {
					i := rnd.IntN(n)
					s := m.queue[i]
					m.queue = slices.Delete(m.queue, i, i+1)
					wantDone(t, "leaving", d.Do(&RateLeave{Take: &s.RateTake, Err: context.Canceled}))
					if got := soon(t, what, done); got != s || got.call.Err != context.Canceled {
						t.Fatalf("seed %d, %s: leaving answers %+v", seed, what, got)
					}
					_, err := d.ReadRate(pace, r)
					wantDone(t, "reading", err)
					check(what+", one has left", m.serve())
				}
			case 4:
				if rnd.IntN(5) == 0 {
					wantDone(t, "forgetting", d.ForgetRate(pace))
					m.at = m.now
					_, err := d.ReadRate(pace, r)
					wantDone(t, "reading", err)
					check(what+", forgotten", m.serve())
				}
			case 5:
				// A group that is undone.
				err := d.Do(&Batch{Atomic: true, Ops: []Operation{&RateForget{Key: pace}, &RateTake{RateRequest: RateRequest{Key: pace, Rate: slow, Cost: 1}},
					&CounterAdd{Key: Key{"a", "c"}, Add: 1, Max: 0}}})
				if err == nil {
					t.Fatalf("seed %d, %s: a group with a bad end is done", seed, what)
				}
			default:
				s := &rateStep{RateTake: RateTake{RateRequest: RateRequest{Key: pace, Rate: r, Cost: 1 + rnd.Int64N(r.Burst), Wait: time.Duration(rnd.IntN(3)) * 5 * time.Second}}}
				s.call = Call{Op: &s.RateTake, Done: func(*Call) { done <- s }}
				waits, refused := m.take(s)
				if err := d.Submit(&s.call); err != nil {
					t.Fatal(err)
				}
				if waits {
					break
				}
				got := soon(t, what, done)
				var e *RateError
				if got != s || errors.As(s.call.Err, &e) != refused || !refused && s.call.Err != nil {
					t.Fatalf("seed %d, %s: %+v is answered %v; the model has %+v, refused %t", seed, what, s.RateRequest, s.call.Err, m, refused)
				}
			}
			state, err := d.ReadRate(pace, r)
			full := time.Duration(max(0, m.at-m.now))
			left := r.left(int64(full))
			if len(m.queue) > 0 {
				left = 0
			}
			if err != nil || state != (RateState{left, full}) || int(d.rates.limit.Waiting()) != len(m.queue) {
				t.Fatalf("seed %d, %s: %+v, %v, %d wait; the model has %+v and %d", seed, what, state, err, d.rates.limit.Waiting(), RateState{left, full}, len(m.queue))
			}
		}
		mustClose(t, d)
		for range m.queue {
			if got := soon(t, "the end", done); !errors.Is(got.call.Err, ErrStopping) {
				t.Fatal(got.call.Err)
			}
		}
	}
}
