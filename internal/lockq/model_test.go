package lockq

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is the contract in slices, with no thought for cost. It is asked what a step must do, and then follows the table
// where the contract leaves a choice: in what order locks end that end at the same instant.
type model struct {
	now     int64
	tokens  int64
	expired uint64
	limit   int
	locks   map[Key]*modelLock
}

type modelLock struct {
	hold    Hold // zero Token: nobody
	renewed bool
	queue   []modelWaiter
}

type modelWaiter struct {
	owner         string
	dur, deadline int64
	w             *Waiter
}

func (m *model) lock(k Key) *modelLock {
	if m.locks[k] == nil {
		m.locks[k] = &modelLock{}
	}
	return m.locks[k]
}

func (m *model) current(k Key) Hold {
	if h := m.lock(k).hold; h.Token != 0 && h.Expires > m.now {
		return h
	}
	return Hold{}
}

func (m *model) waiting() (n int) {
	for _, l := range m.locks {
		n += len(l.queue)
	}
	return n
}

func (m *model) grant(l *modelLock, owner string, dur int64) Hold {
	m.tokens++
	l.hold, l.renewed = Hold{owner, m.tokens, m.now + dur}, false
	return l.hold
}

// heir is the place in the queue of the first who waited still when the lock came free, or -1.
func (m *model) heir(l *modelLock) int {
	over := m.now
	if l.hold.Token != 0 {
		over = min(over, l.hold.Expires)
	}
	return slices.IndexFunc(l.queue, func(w modelWaiter) bool { return w.deadline >= over })
}

func (m *model) end(l *modelLock, o Outcome) Result {
	i := m.heir(l)
	l.hold = Hold{}
	if i < 0 {
		return Result{Outcome: o}
	}
	next := l.queue[i]
	l.queue = slices.Delete(l.queue, i, i+1)
	return Result{o, m.grant(l, next.owner, next.dur), next.w}
}

func (m *model) acquire(k Key, r Request, w *Waiter) Result {
	l, h := m.lock(k), m.current(k)
	if r.Token != 0 && r.Token != h.Token {
		return Result{Outcome: NotHolder, Hold: h}
	}
	if r.Token != 0 || r.Owner != "" && r.Owner == h.Owner {
		l.hold.Expires, l.renewed = m.now+r.Dur, true
		return Result{Outcome: Renewed, Hold: l.hold}
	}
	if h.Token == 0 && m.heir(l) < 0 {
		if l.hold.Token != 0 {
			m.expired++
		}
		return Result{Outcome: Granted, Hold: m.grant(l, r.Owner, r.Dur)}
	}
	if r.Wait == 0 {
		return Result{Outcome: Held, Hold: h}
	}
	if m.waiting() >= m.limit {
		return Result{Outcome: Crowded, Hold: h}
	}
	l.queue = append(l.queue, modelWaiter{r.Owner, r.Dur, m.now + r.Wait, w})
	return Result{Outcome: Queued, Hold: h}
}

func (m *model) release(k Key, owner string, token int64, force bool) Result {
	h := m.current(k)
	switch {
	case h.Token == 0:
		return Result{Outcome: NotLocked}
	case force, token == h.Token && (owner == "" || owner == h.Owner), token == 0 && owner == h.Owner:
		return m.end(m.lock(k), Released)
	}
	return Result{Outcome: NotHolder, Hold: h}
}

func (m *model) giveBack(k Key, token int64) Result {
	h := m.current(k)
	if h.Token != 0 && (h.Token != token || m.lock(k).renewed) {
		return Result{Outcome: NotHolder, Hold: h}
	}
	return m.release(k, "", token, false)
}

func (m *model) cancel(w *Waiter) bool {
	for _, l := range m.locks {
		for i := range l.queue {
			if l.queue[i].w == w {
				l.queue = slices.Delete(l.queue, i, i+1)
				return true
			}
		}
	}
	return false
}

// first is the instant of the next end, and whether it is a hold's.
func (m *model) first() (at int64, isHold, ok bool) {
	for _, l := range m.locks {
		if l.hold.Token != 0 && (!ok || l.hold.Expires <= at) {
			at, isHold, ok = l.hold.Expires, true, true
		}
		for _, w := range l.queue {
			if !ok || w.deadline < at {
				at, isHold, ok = w.deadline, false, true
			}
		}
	}
	return at, isHold, ok
}

// expire does the step that the table says it did, if it is one of those that may be next.
func (m *model) expire(k Key, did Result) (Result, error) {
	at, isHold, ok := m.first()
	if !ok || at > m.now {
		return Result{}, fmt.Errorf("nothing is due at %d", m.now)
	}
	l := m.lock(k)
	if isHold {
		if l.hold.Token == 0 || l.hold.Expires != at {
			return Result{}, fmt.Errorf("the hold of %v ends at %d, another at %d", k, l.hold.Expires, at)
		}
		m.expired++
		return m.end(l, Expired), nil
	}
	for i, w := range l.queue {
		if w.w == did.Waiter && w.deadline == at {
			l.queue = slices.Delete(l.queue, i, i+1)
			return Result{TimedOut, m.current(k), w.w}, nil
		}
	}
	return Result{}, fmt.Errorf("no waiter of %v that the step answered has the deadline %d", k, at)
}

func TestTableDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 8).Draw(t, "limit")
		sweeps := rapid.Bool().Draw(t, "sweeps before every step")
		r := newRig(limit)
		m := &model{limit: limit, locks: map[Key]*modelLock{}}
		var asked []*Waiter

		key := func() Key { return Key{"acc", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")} }
		owner := func() string { return rapid.SampledFrom([]string{"", "", "ann", "bob"}).Draw(t, "owner") }
		token := func() int64 {
			if m.tokens == 0 || rapid.Bool().Draw(t, "no token") {
				return 0
			}
			return rapid.Int64Range(max(1, m.tokens-3), m.tokens).Draw(t, "token")
		}
		want := func(what string, got, want Result) {
			if got != want {
				t.Fatalf("%s at %d: got %+v, want %+v", what, m.now, got, want)
			}
		}
		sweep := func() {
			for {
				k, got, ok := r.Expire(m.now)
				if !ok {
					break
				}
				must, err := m.expire(k, got)
				if err != nil {
					t.Fatal(err)
				}
				want("expire", got, must)
			}
			if at, _, ok := m.first(); ok && at <= m.now {
				t.Fatalf("something was due at %d, it is %d", at, m.now)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				k, w := key(), &Waiter{}
				q := Request{owner(), token(), rapid.Int64Range(0, 12).Draw(t, "dur"), rapid.Int64Range(0, 12).Draw(t, "wait")}
				if rapid.Bool().Draw(t, "acquires") {
					q.Token = 0
				}
				must := m.acquire(k, q, w)
				want("acquire", r.Acquire(m.now, k, q, w), must)
				asked = append(asked, w)
			},
			"release": func(t *rapid.T) {
				k, o, tok, force := key(), owner(), token(), rapid.IntRange(0, 5).Draw(t, "force") == 5
				must := m.release(k, o, tok, force)
				want("release", r.Release(m.now, k, o, tok, force), must)
			},
			"release rightly": func(t *rapid.T) {
				k := key()
				h := m.lock(k).hold
				must := m.release(k, h.Owner, h.Token, false)
				want("release", r.Release(m.now, k, h.Owner, h.Token, false), must)
			},
			"give back": func(t *rapid.T) {
				k, tok := key(), token()
				must := m.giveBack(k, tok)
				want("give back", r.GiveBack(m.now, k, tok), must)
			},
			"cancel": func(t *rapid.T) {
				if len(asked) == 0 {
					t.Skip("nobody asked yet")
				}
				w := rapid.SampledFrom(asked).Draw(t, "waiter")
				if got, must := r.Cancel(w), m.cancel(w); got != must {
					t.Fatalf("cancel: got %t, want %t", got, must)
				}
			},
			"time": func(t *rapid.T) {
				m.now += rapid.Int64Range(1, 6).Draw(t, "later")
				if sweeps {
					sweep()
				}
			},
			"expire": func(t *rapid.T) { sweep() },
			"": func(t *rapid.T) {
				if sweeps {
					sweep() // a hold of no duration is over at once
				}
				at, _, ok := m.first()
				if gotAt, gotOK := r.Next(); gotOK != ok || ok && gotAt != at {
					t.Fatalf("next: got %d, %t, want %d, %t", gotAt, gotOK, at, ok)
				}
				entries, held := 0, 0
				for k, l := range m.locks {
					h, n, ok := r.Holder(m.now, k)
					if h != m.current(k) || ok != (h.Token != 0) || ok && n != len(l.queue) {
						t.Fatalf("holder of %v: got %+v and %d waiters, want %+v and %d", k, h, n, m.current(k), len(l.queue))
					}
					if l.hold.Token != 0 {
						held++
					}
					if l.hold.Token != 0 || len(l.queue) > 0 {
						entries++
					}
				}
				if s := (Stats{held, m.waiting(), m.expired}); r.Stats() != s || r.limit.Waiting() != s.Waiting || len(r.locks) != entries {
					t.Fatalf("got %+v and %d entries, want %+v and %d", r.Stats(), len(r.locks), s, entries)
				}
			},
		})
		m.now += 100
		sweep()
		for len(r.schedule) > 0 { // hand-overs of the last sweep
			m.now += 100
			sweep()
		}
		wantEmpty(t, r)
	})
}
