package db

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
)

func small(t *testing.T) Options {
	return Options{Dir: t.TempDir(), Segment: 64 << 10, Extent: 4096, CheckpointRoom: 4096}
}

func mustOpen(t *testing.T, o Options) *DB {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustClose(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNumbersSurviveARestart(t *testing.T) {
	o := small(t)
	d := mustOpen(t, o)
	k := Key{"1", "a"}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for range 40 {
				if _, err := d.AddSequence(k, 1); err != nil {
					t.Error(err)
				}
				if _, err := d.AddCounter(Key{"1", fmt.Sprint(i)}, 3, math.MinInt64, math.MaxInt64); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	check := func() {
		t.Helper()
		if v, err := d.Sequence(k); v != 2000 || err != nil {
			t.Fatal(v, err)
		}
		for i := range 50 {
			if v, err := d.Counter(Key{"1", fmt.Sprint(i)}); v != 120 || err != nil {
				t.Fatal(i, v, err)
			}
		}
	}
	check()
	mustClose(t, d)
	d = mustOpen(t, o)
	check()
	if err := d.ResetSequence(k); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sequence(k); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if v, err := d.AddSequence(k, 5); v != 5 || err != nil {
		t.Fatal(v, err)
	}
	mustClose(t, d)
}
