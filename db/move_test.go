package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"clouddragon/db"
)

func TestFrozenAccountDoesNothing(t *testing.T) {
	w := newWorld(t)
	version, _ := fillAccount(w)
	mutex, err := w.d.LockMutex(t.Context(), db.LockRequest{Key: key("m"), Dur: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	// These calls are waiting when the account is frozen.
	ctx := t.Context()
	waits := make(chan error, 3)
	go func() {
		_, err := w.d.Lock(ctx, db.LockRequest{Key: key("l"), Dur: time.Hour, Wait: time.Hour})
		waits <- err
	}()
	go func() {
		_, err := w.d.LockMutex(ctx, db.LockRequest{Key: key("m"), Dur: time.Hour, Wait: time.Hour})
		waits <- err
	}()
	go func() {
		_, err := w.d.TakeRate(ctx, db.RateRequest{Key: key("r"), Rate: db.Rate{Limit: 10, Per: time.Hour, Burst: 10}, Cost: 10, Wait: 10 * time.Hour})
		waits <- err
	}()
	// These wait for the same things of another account.
	others := make(chan error, 2)
	other, slow := func(id string) db.Key { return db.Key{Acc: "other", ID: id} }, db.Rate{Limit: 10, Per: time.Hour, Burst: 10}
	held, err := w.d.Lock(ctx, db.LockRequest{Key: other("l"), Dur: 100 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	do(w, &db.RateTake{RateRequest: db.RateRequest{Key: other("r"), Rate: slow, Cost: 10}})
	go func() {
		_, err := w.d.Lock(ctx, db.LockRequest{Key: other("l"), Dur: time.Hour, Wait: 100 * time.Hour})
		others <- err
	}()
	go func() {
		_, err := w.d.TakeRate(ctx, db.RateRequest{Key: other("r"), Rate: slow, Cost: 10, Wait: 100 * time.Hour})
		others <- err
	}()
	await(t, "five calls wait", func() bool {
		s := w.d.Stats()
		return s.Locks.Waiting+s.Mutexes.Waiting+s.RateWaiters == 5
	})
	watched, d := make(chan error, 1), w.d
	go func() {
		_, err := d.WatchSequence(ctx, key("s"), db.Not{Value: 1}, time.Hour)
		watched <- err
	}()
	await(t, "the watch begins", func() bool { return d.Stats().Watch.Watchers > 0 })
	// These calls have no context that would take them out of their queues.
	answers := make(chan error, 2)
	for _, op := range []db.Operation{
		&db.LockTake{LockRequest: db.LockRequest{Key: key("l"), Dur: time.Hour, Wait: 100 * time.Hour}},
		&db.RateTake{RateRequest: db.RateRequest{Key: key("r"), Rate: db.Rate{Limit: 10, Per: time.Hour, Burst: 10}, Cost: 10, Wait: 100 * time.Hour}},
	} {
		if err := w.d.Submit(&db.Call{Op: op, Done: func(c *db.Call) { answers <- c.Err }}); err != nil {
			t.Fatal(err)
		}
	}
	start, err := w.d.Freeze("acc", "there")
	if err != nil {
		t.Fatal(err)
	}
	if start.Version < version || start.Token < mutex || start.State != db.Frozen {
		t.Errorf("the move starts with %+v, want at least version %d and token %d", start, version, mutex)
	}
	for range 3 {
		select {
		case err := <-waits:
			if !errors.As(err, new(*db.MovingError)) {
				t.Errorf("a waiting call was told %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a waiting call got no answer")
		}
	}
	if s := w.d.Stats(); s.Locks.Waiting+s.RateWaiters < 2 {
		t.Errorf("%d calls of the other account wait, want 2", s.Locks.Waiting+s.RateWaiters)
	}
	if err := w.d.Unlock(db.UnlockRequest{Key: other("l"), Token: held}); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	do(w, &db.SequenceAdd{Key: other("s"), N: 1})
	for range 2 {
		if err := <-others; err != nil {
			t.Errorf("a waiting call of another account was told %v", err)
		}
	}
	for range 2 {
		do(w, &db.SequenceAdd{Key: db.Key{Acc: "other", ID: "s"}, N: 1}) // makes the writer look for expired waits
		if err := <-answers; !errors.As(err, new(*db.MovingError)) {
			t.Errorf("a call that fell due while the account was frozen was told %v", err)
		}
	}
	wantAway[*db.MovingError](t, w.d)
	select {
	case err := <-watched:
		t.Errorf("the watch ended: %v", err)
	default:
	}
	w.powerCut()
	wantAway[*db.MovingError](t, w.d)
	again, err := w.d.Freeze("acc", "there")
	if err != nil || again.ID != start.ID {
		t.Errorf("freezing again: %+v, %v", again, err)
	}
	if _, err := w.d.Freeze("acc", "elsewhere"); !errors.As(err, new(*db.ConflictError)) {
		t.Errorf("freezing for another server: %v", err)
	}
	for range 2 {
		if err := w.d.Unfreeze("acc"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.d.Depart("acc", start.ID); !errors.As(err, new(*db.ConflictError)) {
		t.Errorf("an abandoned move went on: %v", err)
	}
	if got := next(w, "s"); got != 2 {
		t.Errorf("the sequence is at %d", got)
	}
	w.powerCut()
	if got := next(w, "s"); got != 3 {
		t.Errorf("the sequence is at %d", got)
	}
}

// TestMarksSurviveAPowerCut moves an account, does each step twice, and cuts the power of
// both servers after each time.
func TestMarksSurviveAPowerCut(t *testing.T) {
	ctx := context.Background()
	from, to := newWorld(t), newWorld(t)
	version, token := fillAccount(from)
	kept, err := from.d.Head(ctx, key("v"))
	if err != nil {
		t.Fatal(err)
	}
	twice := func(step func() error) {
		t.Helper()
		for range 2 {
			if err := step(); err != nil {
				t.Fatal(err)
			}
			from.powerCut()
			to.powerCut()
		}
	}
	var start db.MoveStart
	twice(func() (err error) {
		start, err = from.d.Freeze("acc", "to")
		return err
	})
	var there db.Move
	twice(func() (err error) {
		there, err = to.d.Arrive(ctx, "acc", start.ID, "from", start.Version, start.Token)
		return err
	})
	wantAway[*db.MovingError](t, to.d)
	wantUnreadable[*db.MovingError](t, to.d)
	copyAccount(t, from, to, start.ID, there.Attempt)
	twice(func() error { return to.d.Arrived("acc", start.ID, there.Attempt) })
	wantAway[*db.MovingError](t, from.d)
	wantAway[*db.MovingError](t, to.d)
	wantUnreadable[*db.MovingError](t, to.d)
	if err := to.d.Open("acc", "another move"); !errors.As(err, new(*db.ConflictError)) {
		t.Errorf("opened by another move: %v", err)
	}
	twice(func() error { return from.d.Depart("acc", start.ID) })
	wantAway[*db.AwayError](t, from.d)
	wantUnreadable[*db.AwayError](t, from.d)
	wantAway[*db.MovingError](t, to.d)
	if err := from.d.Unfreeze("acc"); !errors.As(err, new(*db.ConflictError)) {
		t.Errorf("abandoned after the account has moved: %v", err)
	}
	twice(func() error { return to.d.Open("acc", start.ID) })
	twice(func() error { return from.d.Forget(ctx, "acc", start.ID) })
	wantAway[*db.AwayError](t, from.d)
	wantUnreadable[*db.AwayError](t, from.d)

	wantValue(t, to.d, "v", "value")
	if v, err := to.d.Head(ctx, key("v")); err != nil || v.Version != kept.Version {
		t.Errorf("the value has version %d, want %d: %v", v.Version, kept.Version, err)
	}
	wantValue(t, to.d, "gone", "")
	if h, err := to.d.LockHolder(key("l")); err != nil || h.Token != token || h.Owner != "me" || h.TTL > time.Hour {
		t.Errorf("the lock is held by %+v, %v", h, err)
	}
	if n, left, err := to.d.CounterTTL(key("c")); n != 7 || err != nil || left <= 0 || left > time.Hour {
		t.Errorf("the counter is %d for %v, %v", n, left, err)
	}
	if s, err := to.d.ReadRate(key("r"), db.Rate{Limit: 10, Per: time.Hour, Burst: 10}); err != nil || s.Left != 6 {
		t.Errorf("the rate is %+v, %v", s, err)
	}
	if got := set(to, "gone", "x"); got <= version {
		t.Errorf("version %d was given after %d", got, version)
	}
	if got := do(to, lock("fresh", "me", time.Hour)).Holder.Token; got <= start.Token {
		t.Errorf("token %d was given after %d", got, start.Token)
	}
	if got := next(to, "s"); got != 2 {
		t.Errorf("the sequence is at %d", got)
	}
	// Things expire when they would have expired on the source.
	to.pass(time.Hour)
	if _, err := to.d.Counter(key("c")); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("the counter did not expire: %v", err)
	}
	if _, err := to.d.LockHolder(key("l")); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("the lock did not expire: %v", err)
	}
	// Nothing of the account is left on the source.
	if accounts, _, err := from.d.Accounts(ctx, "", 10); err != nil || len(accounts) != 1 || accounts[0] != "other" {
		t.Errorf("the source has %q, %v", accounts, err)
	}
}

// TestTokensOfTheTargetAreAboveTheSources moves an account from a source whose versions and
// tokens are far ahead of the target's. The target crashes right after.
func TestTokensOfTheTargetAreAboveTheSources(t *testing.T) {
	const version, token = 1 << 40, 1 << 50
	for _, atOnce := range []bool{false, true} {
		w := newWorld(t)
		if _, err := w.d.Arrive(t.Context(), "acc", "move", "from", version, token); err != nil {
			t.Fatal(err)
		}
		other := db.Key{Acc: "other", ID: "x"}
		check := func() {
			t.Helper()
			if got := do(w, &db.LockTake{LockRequest: db.LockRequest{Key: other, Owner: "a", Dur: time.Millisecond}}).Holder.Token; got <= token {
				t.Errorf("token %d is not above the source's", got)
			}
			w.pass(time.Second)
			got, err := w.d.LockMutex(t.Context(), db.LockRequest{Key: other, Dur: time.Millisecond})
			if err != nil || got <= token {
				t.Errorf("token %d is not above the source's: %v", got, err)
			}
			w.pass(time.Second)
			if got := do(w, &db.ValueSet{Key: other, Conditions: db.Conditions{Check: db.AnyVersion}}).Version; got <= version {
				t.Errorf("version %d is not above the source's", got)
			}
		}
		if !atOnce {
			check()
		}
		w.powerCut()
		check()
	}
}

// TestSlowerAttemptIsRefused lets two runs of the move command copy at the same time.
func TestSlowerAttemptIsRefused(t *testing.T) {
	w := newWorld(t)
	r := []*db.MoveRecord{{ID: "v", Payload: []byte("old"), Version: 3}}
	first, err := w.d.Arrive(t.Context(), "acc", "move", "from", 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.d.Import("acc", "move", first.Attempt, r); err != nil {
		t.Fatal(err)
	}
	second, err := w.d.Arrive(t.Context(), "acc", "move", "from", 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"import":         w.d.Import("acc", "move", first.Attempt, r),
		"arrived":        w.d.Arrived("acc", "move", first.Attempt),
		"another import": w.d.Import("acc", "other move", second.Attempt, r),
		"another move": func() error {
			_, err := w.d.Arrive(t.Context(), "acc", "other", "elsewhere", 5, 5)
			return err
		}(),
		"abandon": w.d.Abandon(t.Context(), "acc", "other move"),
		"open":    w.d.Open("acc", "move"),
		"forget":  w.d.Forget(t.Context(), "acc", "move"),
	} {
		if !errors.As(err, new(*db.ConflictError)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := errors.Join(w.d.Arrived("acc", "move", second.Attempt), w.d.Open("acc", "move")); err != nil {
		t.Fatal(err)
	}
	wantValue(t, w.d, "v", "") // the first attempt's
	if err := w.d.Import("acc", "move", second.Attempt, r); !errors.As(err, new(*db.ConflictError)) {
		t.Errorf("an import into an account that lives here: %v", err)
	}
	if err := w.d.Abandon(t.Context(), "acc", "move"); err != nil {
		t.Error(err)
	}
	if got := next(w, "s"); got != 1 {
		t.Errorf("the sequence is at %d", got)
	}
}

// TestAccountThatIsThereIsNotReplaced checks that a move is refused if the target has
// anything at all in an account of that name.
func TestAccountThatIsThereIsNotReplaced(t *testing.T) {
	for name, op := range clientOps() {
		switch name {
		case "reset", "delete", "ttl", "unlock", "forget":
			continue // these store nothing
		case "batch":
			op.(*db.Batch).Answers = func(int, error) bool { return true }
		}
		w := newWorld(t)
		do(w, op)
		for range 2 {
			if _, err := w.d.Arrive(t.Context(), "acc", "move", "from", 5, 5); !errors.As(err, new(*db.ConflictError)) {
				t.Errorf("%s: %v", name, err)
			}
			if err := w.d.Admit("acc"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			w.powerCut()
		}
	}
}

// TestGivingUpGoesBackToWhatWas abandons a move to a server from which the account had moved
// away before.
func TestGivingUpGoesBackToWhatWas(t *testing.T) {
	w := newWorld(t)
	next(w, "s")
	start, err := w.d.Freeze("acc", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.d.Depart("acc", start.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Arrive(t.Context(), "acc", "back", "b", 5, 5); err != nil {
		t.Fatal(err)
	}
	w.powerCut()
	if err := w.d.Abandon(t.Context(), "acc", "back"); err != nil {
		t.Fatal(err)
	}
	wantAway[*db.AwayError](t, w.d)
	w.powerCut()
	wantAway[*db.AwayError](t, w.d)
}
