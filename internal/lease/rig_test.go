package lease

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// rig is a table with a clock and a token counter that the test owns.
type rig struct {
	*Table
	now   int64
	last  int64 // token
	fail  error // instead of the next token, if not nil
	limit *Limit
}

func newRig(limit int) *rig {
	r := &rig{limit: NewLimit(limit)}
	r.Table = New(func(Key, bool) (int64, error) {
		if err := r.fail; err != nil {
			r.fail = nil
			return 0, err
		}
		r.last++
		return r.last, nil
	}, r.limit)
	return r
}

var door = Key{"acc", "door"}

func (r *rig) acquire(q Request) (Result, *Waiter) {
	w := &Waiter{Data: q.Owner}
	return r.Acquire(r.now, door, q, w), w
}

// take acquires the lock at once and returns the token.
func (r *rig) take(t *testing.T, q Request) int64 {
	t.Helper()
	res, _ := r.acquire(q)
	if res.Outcome != Granted {
		t.Fatalf("%+v: got %v, want it granted", q, res)
	}
	return res.Holder.Token
}

// wait queues for the lock.
func (r *rig) wait(t *testing.T, q Request) *Waiter {
	t.Helper()
	if q.Wait == 0 {
		q.Wait = 1000
	}
	res, w := r.acquire(q)
	if res.Outcome != Queued {
		t.Fatalf("%+v: got %v, want it queued", q, res)
	}
	return w
}

func (r *rig) release(owner string, token int64, force bool) Result {
	return r.Release(r.now, door, owner, token, force)
}

// expire brings the table to the instant now and returns what was due, as text.
func (r *rig) expire(now int64) (did []string) {
	r.now = now
	for {
		events, ok := r.Expire(now)
		if !ok {
			return did
		}
		did = append(did, describe(events)...)
	}
}

// describe writes events as text.
func describe(events []Event) (all []string) {
	for _, e := range events {
		kind := map[EventKind]string{
			HolderGranted: "granted", HolderRenewed: "renewed", HolderRests: "rests", HolderEnded: "ended",
			WaitTimedOut: "timed out", WaitRefused: "refused",
		}[e.Kind]
		why := map[Why]string{ByRelease: " by release", ByForce: " by force", ByExpiry: " by expiry", ByGiveBack: " by give back"}[e.Why]
		s := kind + why
		if e.Holder != (Holder{}) {
			s += fmt.Sprintf(" %s/%d until %d", e.Holder.Owner, e.Holder.Token, e.Holder.Expires)
		}
		for _, w := range e.Waiters {
			s += fmt.Sprintf(" to %v", w.Data)
		}
		if e.Err != nil {
			s += ": " + e.Err.Error()
		}
		all = append(all, s)
	}
	return all
}

// wantStep checks the outcome and the events of a step.
func wantStep(t *testing.T, got Result, o Outcome, events ...string) {
	t.Helper()
	if got.Outcome != o {
		t.Fatalf("got outcome %d, want %d: %+v", got.Outcome, o, got)
	}
	wantText(t, describe(got.Events), events...)
}

func wantText(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// dump returns the whole state of a table as text, and checks that its parts agree.
func dump(t interface {
	Helper()
	Fatalf(string, ...any)
}, table *Table) string {
	t.Helper()
	var b strings.Builder
	scheduled, claims, holders, waiting, held := 0, 0, 0, 0, 0
	check := func(d due, place int) {
		scheduled++
		if place >= len(table.schedule) || table.schedule[place] != d {
			t.Fatalf("%+v is not in the schedule at %d", d, place)
		}
	}
	keys := slices.SortedFunc(maps.Keys(table.locks), func(a, b Key) int { return cmp.Compare(a.Acc+a.ID, b.Acc+b.ID) })
	for _, k := range keys {
		l := table.locks[k]
		fmt.Fprintf(&b, "lock %v due %t\n", k, l.due)
		if l.key != k || l.holders.Len() == 0 && l.queue.Len() == 0 {
			t.Fatalf("lock %v is stored under %v, with %d holders and %d claims", l.key, k, l.holders.Len(), l.queue.Len())
		}
		if l.due {
			check(due{at: table.schedule[l.place].at, lock: l}, l.place)
			fmt.Fprintf(&b, " due at %d\n", table.schedule[l.place].at)
		}
		n, anonymous, resting := 0, 0, 0
		least, atLeast := Shared, 0
		for h := l.holders.First(); h != nil; h = h.in.Next() {
			fmt.Fprintf(&b, " holder %+v\n", h.state)
			if h.lock != l || h.in.Next() == nil && l.holders.Last() != h || l.byToken(h.Token) != h {
				t.Fatalf("holder %+v is not linked", h.state)
			}
			if h.Resting {
				resting++
			} else if h.Owner == "" {
				anonymous++
			}
			if h.Owner != "" && !h.Resting && l.byOwner(h.Owner) != h {
				t.Fatalf("holder %+v is not found", h.state)
			}
			if h.Limit < least {
				least, atLeast = h.Limit, 0
			}
			if h.Limit == least {
				atLeast++
			}
			check(due{at: h.Expires, lock: l, holder: h}, h.place)
			n++
		}
		if n != l.holders.Len() || anonymous != l.anonymous || resting != l.resting || n > 0 && l.atLimit > 0 && (l.limit != least || l.atLimit != atLeast) {
			t.Fatalf("lock %v counts %d holders, %d anonymous, %d of limit %d; has %d, %d, %d, %d", k, l.holders.Len(), l.anonymous, l.atLimit, l.limit, n, anonymous, atLeast, least)
		}
		if l.index != nil && (len(l.index.byToken) != n || len(l.index.byOwner) > n) {
			t.Fatalf("the index of %v has %d tokens and %d owners of %d holders", k, len(l.index.byToken), len(l.index.byOwner), n)
		}
		n = 0
		for c := l.queue.First(); c != nil; c = c.in.Next() {
			fmt.Fprintf(&b, " claim %s %d\n", c.owner, c.limit)
			if c.owner != "" {
				claims++
				if table.claims[claimKey{l, c.owner}] != c {
					t.Fatalf("the claim of %s is not found", c.owner)
				}
			}
			m := 0
			for w := c.waiters.First(); w != nil; w = w.in.Next() {
				fmt.Fprintf(&b, "  waiter %p since %d until %d dur %d least %d\n", w, w.since, w.deadline, w.dur, w.least)
				if w.claim != c {
					t.Fatalf("a waiter of %s is not linked", c.owner)
				}
				check(due{at: w.deadline, lock: l, waiter: w}, w.place)
				m++
			}
			if m == 0 || m != c.waiters.Len() {
				t.Fatalf("claim %s counts %d waiters, has %d", c.owner, c.waiters.Len(), m)
			}
			n++
		}
		if n != l.queue.Len() {
			t.Fatalf("lock %v counts %d claims, has %d", k, l.queue.Len(), n)
		}
		holders, waiting = holders+l.holders.Len(), waiting+n
		if l.holders.Len() > 0 {
			held++
		}
	}
	for i := range table.schedule {
		if i > 0 && table.schedule[i].before(table.schedule[(i-1)/2]) {
			t.Fatalf("place %d of the schedule is before its parent", i)
		}
	}
	s := table.stats
	if scheduled != len(table.schedule) || claims != len(table.claims) || s.Holders != holders || s.Waiting != waiting || s.Held != held || table.limit.Waiting() != waiting {
		t.Fatalf("%d scheduled of %d, %d claims of %d, %+v, %d holders, %d claims, %d held, %d places taken",
			len(table.schedule), scheduled, len(table.claims), claims, s, holders, waiting, held, table.limit.Waiting())
	}
	fmt.Fprintf(&b, "%+v\n", s)
	return b.String()
}

// wantEmpty checks that nothing is left.
func wantEmpty(t *testing.T, r *rig) {
	t.Helper()
	dump(t, r.Table)
	if len(r.locks) != 0 || len(r.schedule) != 0 || len(r.claims) != 0 {
		t.Fatalf("left behind: %d locks, %d scheduled, %d claims", len(r.locks), len(r.schedule), len(r.claims))
	}
}
