package lease

import (
	"fmt"
	"slices"
	"testing"
)

func TestCancelLeavesTheQueue(t *testing.T) {
	for gone := range 3 {
		t.Run(fmt.Sprint(gone), func(t *testing.T) {
			r := newRig(10)
			r.take(t, Request{Owner: ann, Dur: 10})
			var ws []*Waiter
			var want []string
			for i := range 3 {
				ws = append(ws, r.wait(t, Request{Owner: fmt.Sprint("w", i), Dur: 10}))
				if i != gone {
					want = append(want, fmt.Sprint("w", i))
				}
			}
			if !r.Cancel(0, ws[gone]) || r.Cancel(0, ws[gone]) {
				t.Fatal("Cancel did not take a waiter out of its queue, or did so twice")
			}
			var got []string
			for {
				res := r.release("", 0, true)
				if len(res.Events) < 2 {
					break
				}
				got = append(got, res.Events[1].Holder.Owner)
				if r.Cancel(0, res.Events[1].Waiters[0]) {
					t.Fatal("a waiter that has been granted left its queue")
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("granted to %q, want %q", got, want)
			}
			wantEmpty(t, r)
		})
	}
}

func TestLimitIsSharedOverTables(t *testing.T) {
	limit := NewLimit(2)
	token := func(Key, bool) (int64, error) { return 1, nil }
	a, b := New(token, limit), New(token, limit)
	var ws [4]Waiter
	a.Acquire(0, door, Request{Dur: 10}, &ws[0])
	b.Acquire(0, door, Request{Dur: 10}, &ws[0])
	q := Request{Dur: 10, Wait: 10}
	got := []Outcome{
		a.Acquire(0, door, q, &ws[0]).Outcome,
		b.Acquire(0, door, q, &ws[1]).Outcome,
		a.Acquire(0, door, q, &ws[2]).Outcome,
		b.Acquire(0, door, q, &ws[2]).Outcome,
	}
	a.Cancel(0, &ws[0])
	got = append(got, b.Acquire(0, door, q, &ws[2]).Outcome, a.Acquire(0, door, q, &ws[3]).Outcome)
	if want := []Outcome{Queued, Queued, Crowded, Crowded, Queued, Crowded}; !slices.Equal(got, want) {
		t.Fatalf("got outcomes %d, want %d", got, want)
	}
	b.Release(0, door, "", 0, false)
	if limit.Waiting() != 1 {
		t.Fatalf("%d counted as waiting after a grant, want 1", limit.Waiting())
	}
}

func TestDrainRefusesEveryWaiterAndKeepsHolders(t *testing.T) {
	r := newRig(100)
	for i := range 5 {
		k := Key{"acc", fmt.Sprint(i)}
		for j := range 4 {
			r.Acquire(0, k, Request{Owner: []string{"", "", bob, bob}[j], Dur: 10, Wait: 10}, &Waiter{Data: k})
		}
	}
	refused := map[Key]int{}
	r.Drain(nil, func(k Key, w *Waiter) {
		if w.Data != k || r.Cancel(0, w) {
			t.Errorf("waiter for %v was refused in the queue of %v", w.Data, k)
		}
		refused[k]++
	})
	for i := range 5 {
		if n := refused[Key{"acc", fmt.Sprint(i)}]; n != 3 {
			t.Errorf("%d waiters of lock %d refused, want 3", n, i)
		}
	}
	if s := r.Stats(); s.Held != 5 || s.Waiting != 0 || r.limit.Waiting() != 0 {
		t.Fatalf("got %+v, want 5 held", s)
	}
	r.expire(10)
	wantEmpty(t, r)
}

func TestTimeOutAnswersWaitersAndLeavesExpiredHolders(t *testing.T) {
	limit := NewLimit(100)
	table := New(func(Key, bool) (int64, error) { return 1, nil }, limit)
	a, b := Key{"1", "a"}, Key{"1", "b"}
	table.Acquire(0, a, Request{Dur: 10}, nil)
	table.Acquire(0, b, Request{Dur: 1000}, nil)
	var waiters [40]Waiter
	for i := range waiters {
		k := a
		if i%2 == 1 {
			k = b
		}
		table.Acquire(0, k, Request{Dur: 10, Wait: int64(20 + i)}, &waiters[i])
	}
	refused := map[*Waiter]Key{}
	table.TimeOut(40, func(k Key, w *Waiter) { refused[w] = k })
	for i := range waiters {
		k, gone := refused[&waiters[i]]
		if want := 20+i <= 40; gone != want || gone && (k == b) != (i%2 == 1) {
			t.Errorf("waiter %d until %d: refused %t for %v", i, 20+i, gone, k)
		}
	}
	if limit.Waiting() != len(waiters)-len(refused) || table.Stats().Waiting != limit.Waiting() {
		t.Errorf("%d wait, the table says %d", limit.Waiting(), table.Stats().Waiting)
	}
	// The lock, whose hold has expired, goes to the first remaining waiter.
	if e, ok := table.Expire(40); !ok || len(e) != 2 || e[0].Key != a || e[1].Waiters[0] != &waiters[22] {
		t.Errorf("%+v %t", e, ok)
	}
}

func TestUndoRevertsEverything(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 100, Limit: 2})
	r.take(t, Request{Owner: "old", Dur: 100, Limit: 2, Least: 500})
	var ws []*Waiter
	for _, owner := range []string{"w", bob, "x", bob} {
		ws = append(ws, r.wait(t, Request{Owner: owner, Dur: 10, Wait: 50, Limit: 1}))
	}
	before := dump(t, r.Table)
	steps := map[string]func(){
		"a release with its hand-over":   func() { r.release(ann, 0, false) },
		"a rest":                         func() { r.release("old", 0, false) },
		"force, to a lock that is empty": func() { r.Drain(nil, func(Key, *Waiter) {}); r.release("", 0, true) },
		"a renewal":                      func() { r.acquire(Request{Owner: ann, Dur: 5, Limit: 2}) },
		"a wait":                         func() { r.acquire(Request{Owner: "y", Dur: 5, Wait: 5}) },
		"a retry's wait":                 func() { r.acquire(Request{Owner: bob, Dur: 5, Wait: 5}) },
		"the first in line leaves":       func() { r.Cancel(0, ws[0]) },
		"one in the middle leaves":       func() { r.Cancel(0, ws[2]); r.Cancel(0, ws[1]) },
		"all waits time out":             func() { r.expire(50) },
		"everything expires":             func() { r.expire(1000); r.expire(2000) },
		"waits time out on a full disk":  func() { r.TimeOut(50, func(Key, *Waiter) {}) },
		"another lock":                   func() { r.Acquire(0, Key{"acc", "other"}, Request{Dur: 1}, nil) },
		"grants given back":              func() { r.release("", 0, true); r.GiveBack(0, door, r.last) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			m := r.Mark()
			step()
			if after := dump(t, r.Table); after == before {
				t.Fatal("the step changed nothing")
			}
			r.Undo(m)
			if after := dump(t, r.Table); after != before {
				t.Fatalf("after undo:\n%s\nbefore:\n%s", after, before)
			}
			r.Forget()
			r.now = 0
		})
	}
}
