package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// ids lists all ids of a kind in pages.
func ids(t *testing.T, d *DB, r ListRequest) []string {
	t.Helper()
	var all []string
	for {
		p, err := d.List(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range p.Items {
			all = append(all, x.ID)
		}
		if p.Next == "" {
			return all
		}
		r.After = p.Next
	}
}

// awaitNames waits until the index of names is not being rebuilt.
func awaitNames(t *testing.T, d *DB) {
	t.Helper()
	await(t, "the index of names is rebuilt", d.store.NamesComplete)
}

// makeOne makes one thing of each kind that is stored on disk.
func makeOne(t *testing.T, d *DB, k Key) {
	t.Helper()
	ctx := context.Background()
	_, e1 := d.AddSequence(k, 3)
	_, e2 := d.AddCounter(k, -4, -10, 10)
	_, e3 := d.Set(SetRequest{Key: k, Data: []byte("abc"), Type: "x/y", Check: AnyVersion})
	_, e4 := d.Lock(ctx, LockRequest{Key: k, Owner: "me", Dur: far})
	_, e5 := d.TakeRate(ctx, RateRequest{Key: k, Rate: Rate{Limit: 1, Per: far, Burst: 1}, Cost: 1})
	if err := errors.Join(e1, e2, e3, e4, e5); err != nil {
		t.Fatal(err)
	}
}

var listKinds = []ListKind{ListValues, ListSequences, ListCounters, ListRates, ListLocks, ListMutexes}

func TestListTellsWhatIsThere(t *testing.T) {
	d, _, clock := memoryDB(t)
	ctx := context.Background()
	for _, id := range []string{"b", "a", "a\xff", "ab", "c", "\xff\xff"} {
		makeOne(t, d, Key{"acc", id})
		if _, err := d.LockMutex(ctx, LockRequest{Key: Key{"acc", id}, Owner: "me", Dur: far}); err != nil {
			t.Fatal(err)
		}
	}
	makeOne(t, d, Key{"ac", "other"})
	makeOne(t, d, Key{"acc2", "other"})
	for _, kind := range listKinds {
		for _, c := range []struct {
			r    ListRequest
			want []string
		}{
			{ListRequest{Limit: 100}, []string{"a", "ab", "a\xff", "b", "c", "\xff\xff"}},
			{ListRequest{Limit: 1}, []string{"a", "ab", "a\xff", "b", "c", "\xff\xff"}},
			{ListRequest{Limit: 2, Prefix: "a"}, []string{"a", "ab", "a\xff"}},
			{ListRequest{Limit: 3, Prefix: "a", After: "a"}, []string{"ab", "a\xff"}},
			{ListRequest{Limit: 6, After: "aa"}, []string{"ab", "a\xff", "b", "c", "\xff\xff"}},
			{ListRequest{Limit: 6, Prefix: "b", After: "a"}, []string{"b"}},
			{ListRequest{Limit: 6, Prefix: "b", After: "x"}, nil},
			{ListRequest{Limit: 6, Prefix: "\xff"}, []string{"\xff\xff"}},
		} {
			c.r.Kind, c.r.Acc = kind, "acc"
			if got := ids(t, d, c.r); !slices.Equal(got, c.want) {
				t.Errorf("%+v: got %q, want %q", c.r, got, c.want)
			}
		}
		if got := ids(t, d, ListRequest{Kind: kind, Acc: "nobody", Limit: 3}); got != nil {
			t.Errorf("an account without anything has %q", got)
		}
		p, err := d.List(ctx, ListRequest{Kind: kind, Acc: "acc", Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		x := p.Items[0]
		switch kind {
		case ListValues:
			if x.Size != 3 || x.Type != "x/y" || x.Version == 0 || x.Left != 0 {
				t.Errorf("value: %+v", x)
			}
		case ListSequences:
			if x.Value != 3 {
				t.Errorf("sequence: %+v", x)
			}
		case ListCounters:
			if x.Value != -4 {
				t.Errorf("counter: %+v", x)
			}
		case ListLocks, ListMutexes:
			if x.Holder.Owner != "me" || x.Holder.Token == 0 || x.Holder.TTL != far {
				t.Errorf("lock: %+v", x)
			}
		case ListRates:
			if x.Left != far || x.Value != far.Milliseconds() {
				t.Errorf("rate: %+v", x)
			}
		}
	}
	// Everything with an expiry expires.
	if _, err := d.Set(SetRequest{Key: Key{"acc", "short"}, Check: AnyVersion, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	clock.pass(2 * far)
	d.writer.Wake()
	for _, kind := range []ListKind{ListRates, ListLocks, ListMutexes} {
		await(t, fmt.Sprintf("nothing of kind %d is there after its end", kind), func() bool {
			return len(ids(t, d, ListRequest{Kind: kind, Acc: "acc", Limit: 3})) == 0
		})
	}
	if got := ids(t, d, ListRequest{Kind: ListValues, Acc: "acc", Prefix: "s", Limit: 3}); got != nil {
		t.Errorf("a value that expired is listed: %q", got)
	}
	if keys, err := func() ([]string, error) {
		x, _, _ := d.store.Names()
		return x.Page(nil, "acc\x00\x00s", "acc\x00\x00t", 9)
	}(); err != nil || keys != nil {
		t.Errorf("the index keeps a value that expired: %q, %v", keys, err)
	}
}

func TestAccountsAreThoseInWhichSomethingIs(t *testing.T) {
	d, _, clock := memoryDB(t)
	ctx := context.Background()
	all := func() (all []string) {
		after := ""
		for {
			page, next, err := d.Accounts(ctx, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if after = next; next == "" {
				return all
			}
		}
	}
	if got := all(); got != nil {
		t.Errorf("an empty database has the accounts %q", got)
	}
	var errs []error
	add := func(_ int64, err error) { errs = append(errs, err) }
	add(d.AddSequence(Key{"b", "x"}, 1))
	add(d.AddCounter(Key{"c", "x"}, 1, 0, 9))
	add(d.Set(SetRequest{Key: Key{"a", "x"}, Check: AnyVersion}))
	add(d.Set(SetRequest{Key: Key{"a\x01", "x"}, Check: AnyVersion, TTL: time.Minute}))
	add(d.Lock(ctx, LockRequest{Key: Key{"d", "x"}, Dur: far}))
	add(d.LockMutex(ctx, LockRequest{Key: Key{"bb", "x"}, Dur: far}))
	add(d.LockMutex(ctx, LockRequest{Key: Key{"b", "x"}, Dur: far}))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got, want := all(), []string{"a", "a\x01", "b", "bb", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	clock.pass(time.Minute)
	if err := errors.Join(d.ResetCounter(Key{"c", "x"}), d.Unlock(UnlockRequest{Key: Key{"d", "x"}})); err != nil {
		t.Fatal(err)
	}
	if got, want := all(), []string{"a", "b", "bb"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestInternalNamesAreNotListed makes things that no client can.
func TestInternalNamesAreNotListed(t *testing.T) {
	d, _, _ := memoryDB(t)
	if _, err := d.AddSequence(Key{"acc", "\x00internal"}, 1); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, d, ListRequest{Kind: ListSequences, Acc: "acc", Limit: 3}); got != nil {
		t.Errorf("got %q", got)
	}
	if acc, _, err := d.Accounts(context.Background(), "", 3); err != nil || acc != nil {
		t.Errorf("got %q, %v", acc, err)
	}
}

// TestPageIsOneMoment moves things from one id to another, in one commit each: no
// page may show both or neither.
func TestPageIsOneMoment(t *testing.T) {
	d, _, _ := memoryDB(t)
	ctx := context.Background()
	const pairs = 8
	at := func(i int, right bool) Key { return Key{"acc", fmt.Sprintf("%d-%v", i, right)} }
	for i := range pairs {
		if _, err := d.Set(SetRequest{Key: at(i, false), Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.AddCounter(at(i, false), 1, 0, 100); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range pairs {
		wg.Go(func() {
			for right := true; ; right = !right {
				select {
				case <-done:
					return
				default:
				}
				err := d.Do(&Batch{Atomic: true, Ops: []Operation{
					&ValueSet{Key: at(i, right), Conditions: Conditions{Check: 0}},
					&CounterAdd{Key: at(i, right), Add: 1, Min: 0, Max: 100},
					&ValueDelete{Key: at(i, !right), Conditions: Conditions{Check: AnyVersion}},
					&NumberReset{Key: at(i, !right), Counter: true},
				}})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		for _, kind := range []ListKind{ListValues, ListCounters} {
			p, err := d.List(ctx, ListRequest{Kind: kind, Acc: "acc", Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for i, x := range p.Items {
				pair, _, _ := strings.Cut(x.ID, "-")
				got, want = append(got, pair), append(want, fmt.Sprint(i))
			}
			if len(got) != pairs || !slices.Equal(got, want) {
				t.Fatalf("kind %d: a page shows %v", kind, p.Items)
			}
		}
	}
	close(done)
	wg.Wait()
}

// TestListOutlivesCrashesAndDamage restarts in every way. The lists always have exactly the
// things that exist.
func TestListOutlivesCrashesAndDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	fs, clock := memdisk.New(), newTestClock()
	model := map[string]bool{}
	for round := range 12 {
		d := mustOpen(t, tiny(fs, clock))
		awaitNames(t, d)
		check := func() {
			t.Helper()
			want := []string{}
			for id := range model {
				want = append(want, id)
			}
			slices.Sort(want)
			for _, kind := range []ListKind{ListValues, ListCounters} {
				if got := ids(t, d, ListRequest{Kind: kind, Acc: "acc", Limit: 1 + rnd.IntN(60)}); !slices.Equal(got, want) {
					t.Fatalf("round %d, kind %d: got %q, want %q", round, kind, got, want)
				}
			}
		}
		check()
		for range 150 {
			k := Key{"acc", fmt.Sprint(rnd.IntN(200))}
			if model[k.ID] && rnd.IntN(2) == 0 {
				if err := errors.Join(d.DeleteValue(k, AnyVersion), d.ResetCounter(k)); err != nil {
					t.Fatal(err)
				}
				delete(model, k.ID)
				continue
			}
			_, e1 := d.Set(SetRequest{Key: k, Data: content(int64(rnd.IntN(100))), Check: AnyVersion})
			_, e2 := d.AddCounter(k, 1, 0, 1e6)
			if err := errors.Join(e1, e2); err != nil {
				t.Fatal(err)
			}
			model[k.ID] = true
		}
		check()
		switch round % 4 {
		case 0: // a clean stop
			mustClose(t, d)
			fs = fs.Reopen()
		case 1: // a power cut that keeps what was synced
			next := fs.Cut(fs.Len()).Nothing()
			fs.Freeze()
			_ = d.Close()
			fs = next
		case 2: // the index is gone
			mustClose(t, d)
			fs = fs.Reopen()
			if err := fs.Remove("srv/cloud/data/names/manifest"); err != nil {
				t.Fatal(err)
			}
		case 3: // damage in the index
			mustClose(t, d)
			fs = fs.Reopen()
			for _, name := range fs.Files() {
				if !strings.Contains(name, "/names/") {
					continue
				}
				b, err := fs.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				b[rnd.IntN(len(b))] ^= 1
				if err := fs.WriteFile(name, b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// damageRuns damages the runs of the index of names.
func damageRuns(t *testing.T, fs *memdisk.FS) {
	t.Helper()
	damaged := false
	for _, name := range fs.Files() {
		if strings.Contains(name, "/names/run-") {
			b, err := fs.ReadFile(name)
			wantDone(t, name, err)
			b[0] ^= 1
			wantDone(t, name, fs.WriteFile(name, b))
			damaged = true
		}
	}
	if !damaged {
		t.Fatal("there is no run")
	}
}

// TestDamageIsMetAndRebuilt damages a run that is open.
func TestDamageIsMetAndRebuilt(t *testing.T) {
	d, fs, _ := memoryDB(t)
	makeOne(t, d, Key{"acc", "id"})
	if err := d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	damageRuns(t, fs)
	_, err := d.List(context.Background(), ListRequest{Kind: ListValues, Acc: "acc", Limit: 9})
	if rebuilding := (*ListingError)(nil); !errors.As(err, &rebuilding) {
		t.Fatalf("got %v", err)
	}
	awaitNames(t, d)
	if got := d.Stats().Names; got.Rebuilding || got.Rebuilds != 1 || got.Told == 0 {
		t.Errorf("the figures after it: %+v", got)
	}
	for _, kind := range listKinds[:5] {
		if got := ids(t, d, ListRequest{Kind: kind, Acc: "acc", Limit: 9}); !slices.Equal(got, []string{"id"}) {
			t.Errorf("kind %d: got %q", kind, got)
		}
	}
}

// A prefix is bytes, which need not be UTF-8.
func TestPrefixEndIsTheNextPrefix(t *testing.T) {
	for p, want := range map[string]string{"a": "b", "a\xff": "b", "a\x80": "a\x81", "a\xfe\xff\xff": "a\xff", "\uFFFD": "\xef\xbf\xbe"} {
		if got := prefixEnd(p); got != want {
			t.Errorf("the end of %q is %q, want %q", p, got, want)
		}
	}
}
