package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"clouddragon/db"
)

// TestMarkIsStrongerThanTheConfiguration moves accounts to and from a server whose
// configuration lists its accounts.
func TestMarkIsStrongerThanTheConfiguration(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	w.close()
	w.o.Accounts = []string{"acc", "other"}
	w.open(w.fs)
	next(w, "s")
	arrived := func(acc string) {
		t.Helper()
		m, err := w.d.Arrive(ctx, acc, "move", "from", 5, 5)
		if err == nil {
			err = errors.Join(w.d.Arrived(acc, "move", m.Attempt), w.d.Open(acc, "move"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	arrived("new")
	if _, err := w.d.Freeze("unknown", "there"); !errors.As(err, new(*db.AwayError)) {
		t.Errorf("an account of another server is frozen: %v", err)
	}
	start, err := w.d.Freeze("acc", "there")
	if err == nil {
		err = w.d.Depart("acc", start.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	check := func(d *db.DB) {
		t.Helper()
		for acc, want := range map[string]bool{"acc": false, "other": true, "new": true, "unknown": false} {
			if err := d.Admit(acc); (err == nil) != want {
				t.Errorf("account %s: %v", acc, err)
			}
		}
	}
	check(w.d)
	w.powerCut()
	check(w.d)
	// An account that has arrived leaves again, and comes back when that move is given up.
	if _, err := w.d.Freeze("new", "there"); err != nil {
		t.Fatal(err)
	}
	w.powerCut()
	if err := w.d.Unfreeze("new"); err != nil {
		t.Fatal(err)
	}
	check(w.d)
	w.powerCut()
	check(w.d)
}

// TestMarksHaveABound moves away so many accounts that their marks do not fit.
func TestMarksHaveABound(t *testing.T) {
	w := newWorld(t)
	for i := range 2000 {
		acc := fmt.Sprintf("account-%d", i)
		start, err := w.d.Freeze(acc, strings.Repeat("p", 200))
		if err == nil {
			if err := w.d.Depart(acc, start.ID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.As(err, new(*db.ConflictError)) || i < 20 {
			t.Fatalf("account %d: %v", i, err)
		}
		if err := w.d.Admit(acc); err != nil {
			t.Error(err)
		}
		w.powerCut()
		if err := w.d.Admit("account-0"); !errors.As(err, new(*db.AwayError)) {
			t.Error(err)
		}
		return
	}
	t.Error("there is no bound")
}
