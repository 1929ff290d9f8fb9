package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// rateModel is the simplest possible rate with a list of waiting calls.
type rateModel struct {
	now, at int64
	queue   []*rateStep
}

type rateStep struct {
	RateTake
	call Call
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

// serve counts all waiting calls that are allowed by now.
func (m *rateModel) serve() (served []*rateStep) {
	for len(m.queue) > 0 && m.at-max(0, m.queue[0].most(m.queue[0].Cost)) <= m.now {
		s := m.queue[0]
		m.queue = m.queue[1:]
		m.at = max(m.at, m.now) + s.RateTake.Rate.adds(s.Cost)
		served = append(served, s)
	}
	return served
}

// A random life of a rate, including undone steps, agrees with the model.
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
					// A call that lacks room in the log is decided once there is room. A read needs none and would overtake it.
					await(t, what+", the call queues", func() bool { return d.rates.limit.Waiting() == len(m.queue) })
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
