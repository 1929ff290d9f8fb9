package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// told waits for n events of a stream.
func told(t *testing.T, s *Stream, n int) (all []string) {
	t.Helper()
	last := uint64(0)
	for len(all) < n {
		soon(t, "an event", s.Wake())
		events, lost := s.Take()
		if lost {
			t.Fatal("the stream is lost")
		}
		for _, e := range events {
			if e.N <= last {
				t.Errorf("event %d comes behind %d", e.N, last)
			}
			last = e.N
			all = append(all, fmt.Sprintf("%d %s %s %d", e.Kind, e.ID, e.Op, e.Value))
		}
	}
	return all
}

func TestEventsTellEachChangeInOrder(t *testing.T) {
	d, _, clock := memoryDB(t)
	ctx := context.Background()
	old := Key{"acc", "old"}
	if _, err := d.Set(SetRequest{Key: old, Check: AnyVersion, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	all, err := d.Listen("acc", 0, true, "")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	some, err := d.Listen("acc", ListCounters, false, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer some.Close()
	a, b := Key{"acc", "a"}, Key{"acc", "b"}
	var errs []error
	add := func(_ int64, err error) { errs = append(errs, err) }
	add(d.AddSequence(a, 5))
	add(d.AddCounter(a, -2, -9, 9))
	add(d.AddCounter(b, 1, -9, 9))
	add(d.AddCounter(Key{"other", "a"}, 1, -9, 9))
	add(d.AddCounter(Key{"acc", "\x00internal"}, 1, -9, 9))
	add(d.Set(SetRequest{Key: a, Check: AnyVersion, TTL: time.Second}))
	errs = append(errs, d.ResetCounter(a), d.ResetCounter(a), d.DeleteValue(b, AnyVersion))
	token, err := d.Lock(ctx, LockRequest{Key: a, Dur: far, Owner: "me"})
	add(token, err)
	add(d.Lock(ctx, LockRequest{Key: a, Dur: far, Owner: "me"}))
	errs = append(errs, d.Unlock(UnlockRequest{Key: a, Token: token}))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	got := told(t, all, 8)
	want := []string{"1 a set 5", "2 a set -2", "2 b set 1", "0 a set 0", "2 a delete 0", "4 a set 0", "4 a ttl 0", "4 a delete 0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := told(t, some, 2), []string{"2 a set -2", "2 a delete 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A value that was there before, and one that came since, end when they are due.
	clock.pass(time.Second)
	d.events.signal()
	if got, want := told(t, all, 1), []string{"0 a expire 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	await(t, "the end of a value that was there before is known", func() bool {
		_, known := d.events.endOf(old)
		return known
	})
	clock.pass(time.Minute)
	d.events.signal()
	if got, want := told(t, all, 1), []string{"0 old expire 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The ends of values that were there before are known once the index of names is rebuilt.
func TestEndIsToldThoughTheIndexOfNamesIsRebuilt(t *testing.T) {
	d, fs, clock := memoryDB(t)
	_, err := d.Set(SetRequest{Key: Key{"acc", "old"}, Check: AnyVersion, TTL: time.Minute})
	wantDone(t, "set", err)
	wantDone(t, "checkpoint", d.store.Checkpoint())
	damageRuns(t, fs)
	s, err := d.Listen("acc", ListValues, false, "")
	wantDone(t, "listen", err)
	defer s.Close()
	await(t, "the index of names is rebuilt", func() bool { return d.Stats().Names.Rebuilds > 0 && d.store.NamesComplete() })
	clock.pass(time.Minute)
	if got, want := told(t, s, 1), []string{"0 old expire 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A new end alone is told as such.
func TestWriteThatChangesNothingHasNoEvent(t *testing.T) {
	d, _, _ := memoryDB(t)
	s, err := d.Listen("acc", 0, true, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := Key{"acc", "a"}
	for _, op := range []*CounterAdd{
		{Add: 0, TTL: time.Hour}, // makes it
		{Add: 0},
		{Add: 0, Set: true},
		{Add: 0, TTL: time.Minute}, // its end stays
		{Add: 7},
		{Add: 7, Set: true},
		{Add: 0, TTL: time.Minute, Touch: true},
		{Add: 7, Set: true, TTL: time.Minute, Touch: true},
		{Add: 1, TTL: time.Minute, Touch: true},
	} {
		op.Key, op.Min, op.Max = k, math.MinInt64, math.MaxInt64
		if err := d.Do(op); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := told(t, s, 5), []string{"2 a set 0", "2 a set 7", "2 a ttl 7", "2 a ttl 7", "2 a set 8"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// addMany adds to sequences n times in one batch.
func addMany(t *testing.T, d *DB, n int) {
	t.Helper()
	b := &Batch{Atomic: true}
	for i := range n {
		b.Ops = append(b.Ops, &SequenceAdd{Key: Key{"acc", fmt.Sprint(i % 20)}, N: 1})
	}
	if err := d.Do(b); err != nil {
		t.Fatal(err)
	}
}

// One batch may have more events than a stream may fall behind.
func TestStreamIsNotLostInALargeBatch(t *testing.T) {
	d, _, _ := memoryDB(t)
	s, err := d.Listen("acc", 0, true, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range []int{3 * streamEvents, 2, hubEvents + 1, 2} {
		addMany(t, d, n)
		for i, got := range told(t, s, n) {
			if want := fmt.Sprintf("%d %d set ", ListSequences, i%20); !strings.HasPrefix(got, want) {
				t.Fatalf("event %d of %d: got %q, want %q", i, n, got, want)
			}
		}
	}
}

func TestSlowStreamIsLost(t *testing.T) {
	d, _, _ := memoryDB(t)
	s, err := d.Listen("acc", 0, true, "")
	if err != nil {
		t.Fatal(err)
	}
	for range streamEvents/500 + 2 {
		addMany(t, d, 500)
	}
	await(t, "it is lost and holds no events", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lost && len(s.events) == 0
	})
	if got, want := d.Stats().Watch, (WatchStats{Watchers: 1, Limit: d.watchers.limit, Streams: 1, Lost: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.Close()
	if got := d.Stats().Watch; got.Watchers != 0 || got.Streams != 0 || got.Lost != 1 {
		t.Errorf("once it is closed: %+v", got)
	}
	if n := d.events.n.Load(); n != 0 || d.watchers.n.Load() != 0 {
		t.Errorf("%d streams are left", n)
	}
	d.Drain()
	if _, err := d.Listen("acc", 0, true, ""); err != ErrStopping {
		t.Errorf("after the drain: %v", err)
	}
}
