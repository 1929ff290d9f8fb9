package db

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"clouddragon/db/commit"
)

// ahead is a clock that is d ahead of the machine's.
func ahead(d time.Duration) Clock {
	machine := commit.MachineClock()
	return func() (mono, wall int64) {
		mono, wall = machine()
		return mono + int64(d), wall + int64(d)
	}
}

// heldWith returns the tokens of the holders that a read of a lock found.
func heldWith(all Holders) (tokens []int64) {
	for _, h := range all.Holders {
		tokens = append(tokens, h.Token)
	}
	return tokens
}

// settle has the follower apply everything.
func (p *pair) settle() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	wantDone(p.t, "settle", p.f.Settle(p.d.Log().Durable()))
}

// A follower reads locks, rates and lists, although it has no writer that could read them.
func TestFollowerReadsLocksAndRates(t *testing.T) {
	p := newPair(t)
	lock := func(id, owner string, shared bool, dur time.Duration) int64 {
		token, err := p.d.Lock(t.Context(), LockRequest{Key: Key{"a", id}, Owner: owner, Dur: dur, Shared: shared})
		wantDone(t, "lock "+id, err)
		return token
	}
	readers := []int64{lock("shared", "one", true, 3*time.Hour), lock("shared", "two", true, 3*time.Hour)}
	lock("ended", "me", false, 30*time.Minute) // an hour ahead it has ended
	p.o.Clock = ahead(time.Hour)
	p.follow()
	p.o.Clock = nil
	// From here on batches come one at a time.
	handed := lock("handed", "first", false, 3*time.Hour)
	wantDone(t, "unlock", p.d.Unlock(UnlockRequest{Key: Key{"a", "handed"}, Token: handed}))
	handed = lock("handed", "second", false, 3*time.Hour)
	lock("free", "me", false, 3*time.Hour)
	wantDone(t, "unlock", p.d.Unlock(UnlockRequest{Key: Key{"a", "free"}, Owner: "me"}))
	_, err := p.d.Lock(t.Context(), LockRequest{Key: Key{"only-locks", "l"}, Dur: 3 * time.Hour})
	wantDone(t, "lock", err)
	_, err = p.d.Lock(t.Context(), LockRequest{Key: Key{"only-ended", "l"}, Dur: 30 * time.Minute})
	wantDone(t, "lock", err)
	_, err = p.d.AddSequence(Key{"s", "s"}, 3)
	wantDone(t, "add", err)
	rate := Rate{Limit: 100, Per: 100 * time.Hour, Burst: 100}
	for range 7 {
		_, err := p.d.TakeRate(t.Context(), RateRequest{Key: Key{"a", "r"}, Rate: rate, Cost: 10})
		wantDone(t, "take", err)
	}
	p.settle()
	read := func(id string, token int64) (Holders, error) {
		op := LockRead{Key: Key{"a", id}, Token: token}
		err := p.f.Do(&op)
		return op.Holders, err
	}
	for id, want := range map[string][]int64{"shared": readers, "handed": {handed}, "ended": nil, "free": nil, "none": nil} {
		all, err := read(id, 0)
		if got := heldWith(all); !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) || err != nil && err != ErrNotFound {
			t.Errorf("lock %q is held with %v, %v; want %v", id, got, err, want)
		}
	}
	all, err := read("handed", handed)
	if err != nil || all.Holders[0].Owner != "second" || all.Holders[0].Waiters != 0 || all.Holders[0].TTL > 3*time.Hour || all.Holders[0].TTL < time.Hour {
		t.Errorf("the holder by its token: %+v %v", all, err)
	}
	if _, err := read("handed", readers[0]); !errors.As(err, new(*HeldError)) {
		t.Errorf("another token: %v, want a *HeldError", err)
	}
	// 70 were taken; in the hour that the follower is ahead one came back.
	if s, err := p.f.ReadRate(Key{"a", "r"}, rate); err != nil || s.Left != 31 {
		t.Errorf("the rate allows %d, %v; want 31", s.Left, err)
	}
	if s, err := p.f.ReadRate(Key{"a", "none"}, rate); err != nil || s.Left != 100 {
		t.Errorf("a rate that was never used allows %d, %v", s.Left, err)
	}
	for kind, want := range map[ListKind][]string{ListLocks: {"handed", "shared"}, ListRates: {"r"}, ListSequences: nil, ListMutexes: nil} {
		var got []string
		r := ListRequest{Kind: kind, Acc: "a", Limit: 1}
		for more := true; more; more = r.After != "" {
			page, err := p.f.List(t.Context(), r)
			wantDone(t, "list", err)
			for _, x := range page.Items {
				got = append(got, x.ID)
			}
			r.After = page.Next
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the list of kind %d is %q, want %q", kind, got, want)
		}
	}
	for after, want := range map[string][]string{"": {"a", "only-locks", "s"}, "a": {"only-locks", "s"}} {
		if got, next, err := p.f.Accounts(t.Context(), after, 10); err != nil || next != "" || !reflect.DeepEqual(got, want) {
			t.Errorf("the accounts after %q are %q %q %v, want %q", after, got, next, err, want)
		}
	}
	if err := p.f.Do(&SequenceAdd{Key: Key{"a", "s"}, N: 1}); !errors.Is(err, errFollows) {
		t.Errorf("a write: %v, want errFollows", err)
	}
	p.stop()
	mustClose(t, p.d)
}

// A list of a follower removes no names: the end of a hold can be moved by a promotion.
func TestPromotedFollowerListsLocksThatHadEnded(t *testing.T) {
	p := newPair(t)
	p.follow()
	for i := range 3 {
		_, err := p.d.Lock(t.Context(), LockRequest{Key: Key{"a", fmt.Sprint(i)}, Dur: time.Hour})
		wantDone(t, "lock", err)
	}
	p.stop()
	p.o.Clock = ahead(time.Hour)
	p.open()
	page, err := p.f.List(t.Context(), ListRequest{Kind: ListLocks, Acc: "a", Limit: 10})
	if err != nil || len(page.Items) != 0 {
		t.Errorf("locks that have ended are listed: %+v %v", page.Items, err)
	}
	p.stop()
	o := p.o
	o.Dir, o.Mirror = p.dir, nil
	wantDone(t, "take over", TakeOver(o, time.Hour))
	d := mustOpen(t, o)
	page, err = d.List(t.Context(), ListRequest{Kind: ListLocks, Acc: "a", Limit: 10})
	if err != nil || len(page.Items) != 3 {
		t.Errorf("after the promotion %d locks are listed, want 3: %v", len(page.Items), err)
	}
	mustClose(t, d)
	mustClose(t, p.d)
}

// Lists of a follower go on while it applies batches, and lose nothing that exists.
func TestFollowerListsWhileItFollows(t *testing.T) {
	p := newPair(t)
	take := func(id string) {
		_, err := p.d.Lock(t.Context(), LockRequest{Key: Key{"a", id}, Owner: "me", Dur: time.Hour})
		wantDone(t, "lock", err)
	}
	take("kept")
	p.follow()
	follower, done := p.f, make(chan struct{})
	listed := make(chan error, 1)
	go func() {
		for {
			page, err := follower.List(context.Background(), ListRequest{Kind: ListLocks, Acc: "a", Limit: 100})
			kept := slices.ContainsFunc(page.Items, func(x Listed) bool { return x.ID == "kept" })
			if err != nil || !kept {
				listed <- fmt.Errorf("a lock that is held all the time is not among %+v: %w", page.Items, err)
				return
			}
			op := LockRead{Key: Key{"a", "kept"}}
			if err := follower.Do(&op); err != nil {
				listed <- err
				return
			}
			select {
			case <-done:
				listed <- nil
				return
			default:
			}
		}
	}()
	for i := range 200 {
		id := fmt.Sprint(i % 10)
		take(id)
		if i < 190 {
			wantDone(t, "unlock", p.d.Unlock(UnlockRequest{Key: Key{"a", id}, Owner: "me"}))
		}
	}
	close(done)
	wantDone(t, "list", <-listed)
	p.settle()
	page, err := p.f.List(t.Context(), ListRequest{Kind: ListLocks, Acc: "a", Limit: 100})
	if err != nil || len(page.Items) != 11 {
		t.Errorf("%d locks are listed, want 11: %v", len(page.Items), err)
	}
	p.stop()
	mustClose(t, p.d)
}
