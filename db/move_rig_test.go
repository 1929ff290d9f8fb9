package db_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"clouddragon/db"
)

// clientOps are operations of clients on the account acc, one of each kind.
func clientOps() map[string]db.Operation {
	any := db.Conditions{Check: db.AnyVersion}
	rate := db.Rate{Limit: 10, Per: time.Hour, Burst: 10}
	ops := map[string]db.Operation{
		"sequence":     &db.SequenceAdd{Key: key("s"), N: 1},
		"reset":        &db.NumberReset{Key: key("s")},
		"counter":      &db.CounterAdd{Key: key("c"), Add: 1, Min: -1 << 60, Max: 1 << 60},
		"set":          &db.ValueSet{Key: key("v"), Data: []byte("v"), Conditions: any},
		"delete":       &db.ValueDelete{Key: key("v"), Conditions: any},
		"ttl":          &db.ValueTTL{Key: key("v"), TTL: time.Hour, Conditions: any},
		"lock":         lock("l", "other", time.Hour),
		"unlock":       &db.LockRelease{UnlockRequest: db.UnlockRequest{Key: key("l"), Force: true}},
		"rate":         &db.RateTake{RateRequest: db.RateRequest{Key: key("r"), Rate: rate, Cost: 1}},
		"forget":       &db.RateForget{Key: key("r")},
		"batch":        &db.Batch{Ops: []db.Operation{&db.NumberRead{Key: key("s")}, &db.SequenceAdd{Key: key("s"), N: 1}}},
		"atomic batch": &db.Batch{Atomic: true, Ops: []db.Operation{&db.ValueSet{Key: key("w"), Conditions: any}}},
	}
	ops["retry"] = &db.Retry{
		Acc: "acc", Key: "k", Keep: time.Hour, Op: &db.SequenceAdd{Key: key("s"), N: 1},
		Answer: func() ([]byte, error) { return nil, nil },
	}
	return ops
}

// wantAway checks that nothing of the account can be done, with an error of that type.
func wantAway[E error](t *testing.T, d *db.DB) {
	t.Helper()
	var want E
	check := func(what string, err error) {
		t.Helper()
		if !errors.As(err, &want) {
			t.Errorf("%s: %v, want %T", what, err, want)
		}
	}
	for name, op := range clientOps() {
		check(name, d.Do(op))
	}
	_, err := d.LockMutex(t.Context(), db.LockRequest{Key: key("m"), Dur: time.Hour})
	check("mutex", err)
	_, err = d.Lock(t.Context(), db.LockRequest{Key: key("l"), Dur: time.Hour, Wait: time.Hour})
	check("a wait", err)
	check("admit", d.Admit("acc"))
	// Other accounts go on.
	if _, err := d.AddSequence(db.Key{Acc: "other", ID: "s"}, 1); err != nil {
		t.Error(err)
	}
}

// wantUnreadable checks that nothing of the account can be read.
func wantUnreadable[E error](t *testing.T, d *db.DB) {
	t.Helper()
	var want E
	ctx := t.Context()
	reads := map[string]error{}
	_, reads["sequence"] = d.Sequence(key("s"))
	_, reads["counter"] = d.Counter(key("c"))
	_, reads["value"] = d.Get(key("v"))
	_, reads["head"] = d.Head(ctx, key("v"))
	_, reads["lock"] = d.LockHolder(key("l"))
	_, reads["rate"] = d.ReadRate(key("r"), db.Rate{Limit: 10, Per: time.Hour, Burst: 10})
	_, reads["watch"] = d.WatchSequence(ctx, key("s"), db.Not{Value: 1}, time.Hour)
	for _, kind := range []db.ListKind{db.ListValues, db.ListSequences, db.ListLocks, db.ListMutexes} {
		_, reads[fmt.Sprint("list ", kind)] = d.List(ctx, db.ListRequest{Kind: kind, Acc: "acc", Limit: 10})
	}
	for name, err := range reads {
		if !errors.As(err, &want) {
			t.Errorf("%s: %v, want %T", name, err, want)
		}
	}
}

func fillAccount(w *world) (version, token int64) {
	w.t.Helper()
	next(w, "s")
	do(w, &db.CounterAdd{Key: key("c"), Add: 7, Min: -1 << 60, Max: 1 << 60, TTL: time.Hour})
	do(w, &db.RateTake{RateRequest: db.RateRequest{Key: key("r"), Rate: db.Rate{Limit: 10, Per: time.Hour, Burst: 10}, Cost: 4}})
	set(w, "v", "value")
	version = set(w, "gone", "x")
	do(w, &db.ValueDelete{Key: key("gone"), Conditions: db.Conditions{Check: db.AnyVersion}})
	token = do(w, lock("l", "me", time.Hour)).Holder.Token
	return version, token
}

// copyAccount copies the account acc from one world to another.
func copyAccount(t *testing.T, from, to *world, id, attempt string) {
	t.Helper()
	var sent []byte
	n := uint64(0)
	err := from.d.Export(t.Context(), "acc", id, func(r *db.MoveRecord) error {
		sent = db.AppendMoveRecord(sent, r)
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	in := db.NewMoveReader(bytes.NewReader(db.AppendMoveEnd(sent, n)), 1<<20)
	for {
		r, err := in.Next(true)
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // whose answer was lost
			if err := to.d.Import("acc", id, attempt, []*db.MoveRecord{r}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// await polls for a condition that has nothing to wait on.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}
