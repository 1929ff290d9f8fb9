package db

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"clouddragon/internal/names"
	"clouddragon/internal/test/memdisk"
)

// hookedReads is a context that calls hook when a read of a value has to wait for its turn.
type hookedReads struct {
	context.Context
	hook func()
}

// Done is called by a read that has to wait.
func (c hookedReads) Done() <-chan struct{} {
	c.hook()
	return nil
}

// An account becomes empty while the page that it would be on is made. The accounts after that
// page are still listed.
func TestAccountThatBecomesEmptyDoesNotEndTheList(t *testing.T) {
	d, _, _ := memoryDB(t)
	for _, acc := range []string{"a", "c", "d"} {
		_, err := d.AddSequence(Key{acc, "n"}, 1)
		wantDone(t, "add", err)
	}
	_, err := d.Set(SetRequest{Key: Key{"b", "v"}, Check: AnyVersion})
	wantDone(t, "set", err)
	for range cap(d.reads) {
		d.reads <- struct{}{}
	}
	free := func() {
		for len(d.reads) > 0 {
			<-d.reads
		}
	}
	// When b is looked at, a was looked at before.
	ctx := hookedReads{t.Context(), func() {
		wantDone(t, "reset", d.ResetSequence(Key{"a", "n"}))
		free()
	}}
	var all []string
	page, next, err := d.Accounts(ctx, "", 2)
	for wantDone(t, "a page", err); ; wantDone(t, "a page", err) {
		all = append(all, page...)
		if next == "" {
			break
		}
		page, next, err = d.Accounts(t.Context(), next, 2)
	}
	if want := []string{"b", "c", "d"}; !slices.Equal(all, want) {
		t.Errorf("the accounts are %q, want %q", all, want)
	}
}

// An account is listed however many names of missing things the index has, and the next list need
// not look them up again.
func TestAccountOfManyMissingThingsIsListed(t *testing.T) {
	d, _, _ := memoryDB(t)
	_, err := d.AddSequence(Key{"acc", "n"}, 1)
	wantDone(t, "add", err)
	for i := range 20_000 {
		d.store.AddName(valueKind, "acc", fmt.Sprint(i))
	}
	if all, _, err := d.Accounts(t.Context(), "", 2); err != nil || !slices.Equal(all, []string{"acc"}) {
		t.Errorf("the accounts are %q, %v", all, err)
	}
	x, _, _ := d.store.Names()
	if keys, err := x.Page(nil, "", "", 10); err != nil || len(keys) != 1 {
		t.Errorf("the index has the names %q, %v; want that of the sequence alone", keys, err)
	}
	// A list ends with its client.
	for i := range 20_000 {
		d.store.AddName(valueKind, "acc", fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.Accounts(ctx, "", 2); err != context.Canceled {
		t.Errorf("without its client: %v", err)
	}
}

// An account that has only a state of Terraform is listed, after a restart and a rebuild of the
// index too, until the state is gone. The state itself is not listed.
func TestAccountOfAStateAloneIsListed(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	state := Key{"acc", HiddenData + "0web"}
	accounts := func() []string {
		t.Helper()
		all, _, err := d.Accounts(t.Context(), "", 10)
		wantDone(t, "accounts", err)
		return all
	}
	_, err := d.Set(SetRequest{Key: state, Check: AnyVersion})
	wantDone(t, "a state", err)
	_, err = d.Set(SetRequest{Key: Key{"other", retryID("key")}, Check: AnyVersion})
	wantDone(t, "an answer that is kept", err)
	for _, when := range []string{"at first", "after a restart", "after a rebuild"} {
		if got := accounts(); !slices.Equal(got, []string{"acc"}) {
			t.Errorf("%s the accounts are %q", when, got)
		}
		if got := ids(t, d, ListRequest{Kind: ListValues, Acc: "acc", Limit: 10}); got != nil {
			t.Errorf("%s the values are %q", when, got)
		}
		if when == "at first" {
			mustClose(t, d)
			d = mustOpen(t, tiny(fs, clock))
		} else {
			d.store.NamesDamaged(names.ErrDamaged)
			await(t, "the index is rebuilt", d.store.NamesComplete)
		}
	}
	wantDone(t, "a delete", d.DeleteValue(state, AnyVersion))
	if got := accounts(); got != nil {
		t.Errorf("without the state the accounts are %q", got)
	}
	mustClose(t, d)
}
