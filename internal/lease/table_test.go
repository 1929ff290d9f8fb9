package lease

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// check compares all that can be read from the table with the model.
func (m *model) check(t *rapid.T, r *rig) {
	s := m.stats
	entries := 0
	for k, l := range m.locks {
		var holders []Holder
		for _, h := range l.holders {
			if is, ok := h.at(m.now); ok {
				holders = append(holders, is)
			}
		}
		var queue []Waiting
		for _, c := range l.queue {
			queue = append(queue, Waiting{c.owner, c.waiters[0].since, c.limit})
		}
		if got := r.Holders(m.now, k, 100); !slices.Equal(got, holders) {
			t.Fatalf("holders of %v: got %+v, want %+v", k, got, holders)
		}
		if got := r.Queue(k, 100); !slices.Equal(got, queue) || r.Waiters(k) != len(queue) {
			t.Fatalf("queue of %v: got %+v, want %+v", k, got, queue)
		}
		oldest, ok := r.Oldest(m.now, k)
		if ok != (len(holders) > 0) || ok && oldest != holders[0] {
			t.Fatalf("oldest of %v: got %+v, want the first of %+v", k, oldest, holders)
		}
		for token := max(1, m.tokens-12); token <= m.tokens; token++ {
			i := l.find(func(h modelHolder) bool { return h.Token == token && !h.Resting && h.Expires > m.now })
			if h, ok := r.Holder(m.now, k, token); ok != (i >= 0) || ok && h != l.holders[i].Holder {
				t.Fatalf("holder of %v with %d: got %+v, %t, want it to be number %d", k, token, h, ok, i)
			}
		}
		if len(l.holders) > 0 {
			s.Held++
		}
		if len(l.holders)+len(l.queue) > 0 {
			entries++
		}
		s.Holders += len(l.holders)
	}
	s.Waiting = m.waiting()
	if r.Stats() != s || len(r.locks) != entries {
		t.Fatalf("got %+v and %d entries, want %+v and %d", r.Stats(), len(r.locks), s, entries)
	}
	dump(t, r.Table)
}

func TestTableDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 12).Draw(t, "limit")
		sweeps := rapid.Bool().Draw(t, "sweeps before every step")
		names := []string{"a", "b"}[:rapid.IntRange(1, 2).Draw(t, "keys")]
		owners := []string{"", "", "ann", "bob", "cid", "dan"}
		limits := []int32{0, 1, 2, 3, 20, Shared, Shared}
		r := newRig(limit)
		m := &model{limit: limit, locks: map[Key]*modelLock{}}
		var asked []*Waiter
		type saved struct {
			mark  Mark
			model *model
			text  string
		}
		var marks []saved

		key := func() Key { return Key{"acc", rapid.SampledFrom(names).Draw(t, "key")} }
		owner := func() string { return rapid.SampledFrom(owners).Draw(t, "owner") }
		token := func() int64 {
			if m.tokens == 0 || rapid.Bool().Draw(t, "no token") {
				return 0
			}
			return rapid.Int64Range(max(1, m.tokens-6), m.tokens).Draw(t, "token")
		}
		want := func(what string, k Key, got Result, step func() (Outcome, Holder, []Event)) {
			events, err := m.follow(k, got.Events)
			if err != nil {
				t.Fatalf("%s at %d: %v", what, m.now, err)
			}
			o, h, must := step()
			if got.Outcome != o || got.Holder != h || (got.Err != nil) != (o == NoToken) || !slices.EqualFunc(events, must, sameEvent) {
				t.Fatalf("%s at %d: got %d %+v %q, want %d %+v %q", what, m.now, got.Outcome, got.Holder, describe(events), o, h, describe(must))
			}
		}
		sweep := func() {
			for {
				before := m.dues(Key{})
				events, ok := r.Expire(m.now)
				if !ok {
					break
				}
				if len(before) == 0 {
					t.Fatalf("nothing was due at %d", m.now)
				}
				if len(events) == 0 { // what was left of a claim that may fit
					m.locks[before[0].k].due = -1
					continue
				}
				i := slices.IndexFunc(before, func(d dueItem) bool {
					c := m.copy()
					return slices.EqualFunc(c.handle(d), events, sameEvent)
				})
				if i < 0 {
					t.Fatalf("expire at %d: got %q, which is not due among %+v", m.now, describe(events), before)
				}
				m.handle(before[i])
			}
			if d := m.dues(Key{}); len(d) > 0 {
				t.Fatalf("was due at %d: %+v", m.now, d)
			}
		}
		ask := func(q Request) {
			k, w := key(), &Waiter{}
			want("acquire", k, r.Acquire(m.now, k, q, w), func() (Outcome, Holder, []Event) { return m.acquire(k, q, w) })
			asked = append(asked, w)
		}
		acquire := func(t *rapid.T) {
			ask(Request{
				Owner: owner(),
				Dur:   rapid.Int64Range(1, 14).Draw(t, "dur"),
				Wait:  rapid.Int64Range(0, 14).Draw(t, "wait"),
				Limit: rapid.SampledFrom(limits).Draw(t, "limit"),
				Least: max(0, rapid.Int64Range(-20, 20).Draw(t, "least")),
			})
		}
		actions := map[string]func(*rapid.T){
			"acquire":       acquire,
			"acquire again": acquire,
			"acquire more":  acquire,
			"read": func(t *rapid.T) {
				ask(Request{Owner: owner(), Dur: rapid.Int64Range(1, 30).Draw(t, "dur"), Wait: 20, Limit: Shared})
			},
			"renew": func(t *rapid.T) {
				ask(Request{Owner: owner(), Token: token(), Dur: rapid.Int64Range(1, 14).Draw(t, "dur"), Limit: rapid.SampledFrom(limits).Draw(t, "limit")})
			},
			"release": func(t *rapid.T) {
				k, o, tok, force := key(), owner(), token(), rapid.IntRange(0, 9).Draw(t, "force") == 5
				want("release", k, r.Release(m.now, k, o, tok, force), func() (Outcome, Holder, []Event) { return m.release(k, o, tok, force) })
			},
			"release rightly": func(t *rapid.T) {
				k := key()
				if len(m.lock(k).holders) == 0 {
					return
				}
				h := rapid.SampledFrom(m.lock(k).holders).Draw(t, "holder")
				want("release", k, r.Release(m.now, k, h.Owner, h.Token, false), func() (Outcome, Holder, []Event) { return m.release(k, h.Owner, h.Token, false) })
			},
			"give back": func(t *rapid.T) {
				k, tok := key(), token()
				want("give back", k, r.GiveBack(m.now, k, tok), func() (Outcome, Holder, []Event) { return m.giveBack(k, tok) })
			},
			"cancel": func(t *rapid.T) {
				if len(asked) == 0 {
					return
				}
				w := rapid.SampledFrom(asked).Draw(t, "waiter")
				if got, must := r.Cancel(m.now, w), m.leave(w); got != must {
					t.Fatalf("cancel: got %t, want %t", got, must)
				}
			},
			"time out": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
					return
				}
				var refused []*Waiter
				r.TimeOut(m.now, func(_ Key, w *Waiter) { refused = append(refused, w) })
				for _, w := range refused { // in the order of the table, which it need not keep
					m.stats.TimedOut++
					m.leave(w)
				}
				for _, l := range m.locks {
					for _, c := range l.queue {
						for _, w := range c.waiters {
							if w.deadline <= m.now {
								t.Fatalf("a waiter until %d was not timed out at %d", w.deadline, m.now)
							}
						}
					}
				}
			},
			"no token": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "rarely") == 0 {
					r.fail, m.fail = errNoToken, true
				}
			},
			"time": func(t *rapid.T) {
				m.now += rapid.Int64Range(1, 6).Draw(t, "later")
				if sweeps {
					sweep()
				}
			},
			"expire": func(t *rapid.T) { sweep() },
			"mark": func(t *rapid.T) {
				if len(marks) < 3 {
					marks = append(marks, saved{r.Mark(), m.copy(), dump(t, r.Table)})
				}
			},
			"undo": func(t *rapid.T) {
				if len(marks) == 0 {
					return
				}
				i := rapid.IntRange(0, len(marks)-1).Draw(t, "mark")
				s := marks[i]
				marks = marks[:i+1]
				r.Undo(s.mark)
				if got := dump(t, r.Table); got != s.text {
					t.Fatalf("after undo:\n%s\nbefore:\n%s", got, s.text)
				}
				now, tokens, fail := m.now, m.tokens, m.fail // those go on
				*m = *s.model.copy()
				m.now, m.tokens, m.fail = now, tokens, fail
			},
			"forget": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "really") {
					r.Forget()
					marks = nil
				}
			},
			"": func(t *rapid.T) {
				if sweeps {
					sweep()
				}
				m.check(t, r)
			},
		}
		t.Repeat(actions)
		if len(marks) > 0 {
			r.Forget()
		}
		for m.now += 100; len(r.schedule) > 0; m.now += 100 {
			sweep()
		}
		dump(t, r.Table)
		if len(r.locks) != 0 {
			t.Fatalf("%d locks are left", len(r.locks))
		}
	})
}
