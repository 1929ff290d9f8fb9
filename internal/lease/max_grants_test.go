package lease

import "testing"

// A step grants at most MaxGrants claims and leaves the rest due at once, for Expire.
func TestStepGrantsNoMoreThanItMay(t *testing.T) {
	r := newRig(100)
	var fresh []bool
	take := r.Table.token
	r.Table.token = func(k Key, f bool) (int64, error) {
		fresh = append(fresh, f)
		return take(k, f)
	}
	r.MaxGrants = 2
	writer := r.take(t, Request{Dur: 1000})
	var readers []*Waiter
	for range 6 {
		readers = append(readers, r.wait(t, Request{Dur: 1000, Limit: Shared}))
	}
	grants := func(events []Event) (n int) {
		for _, e := range events {
			if e.Kind == HolderGranted {
				n++
			}
		}
		return n
	}
	fresh = nil
	m := r.Mark()
	for undone := false; ; undone = true {
		if n := grants(r.Release(r.now, door, "", writer, false).Events); n != 2 {
			t.Fatalf("%d were granted by the release, want 2", n)
		}
		if at, ok := r.Next(); !ok || at > r.now {
			t.Fatalf("the rest is due at %d, %t", at, ok)
		}
		if undone {
			break
		}
		r.Undo(m)
		r.Forget()
	}
	if len(fresh) != 4 || fresh[0] || !fresh[1] || fresh[2] || !fresh[3] {
		t.Errorf("fresh were %v", fresh)
	}
	// A step on the lock grants two more of the remaining claims, and nobody overtakes the others.
	if res, _ := r.acquire(Request{Dur: 1000, Limit: Shared}); res.Outcome != Held {
		t.Errorf("a reader that comes later: %v", res.Outcome)
	}
	if !r.Cancel(r.now, readers[4]) {
		t.Error("a waiter is no longer in the queue")
	}
	total := 0
	for {
		events, ok := r.Expire(r.now)
		if !ok {
			break
		}
		n := grants(events)
		if total += n; n > 2 {
			t.Errorf("%d were granted by one step", n)
		}
	}
	if total != 1 || r.Stats().Holders != 5 || r.Stats().Waiting != 0 {
		t.Errorf("%d more were granted: %+v", total, r.Stats())
	}
}
