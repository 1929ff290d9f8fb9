package db

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

func TestValuesSurviveARestart(t *testing.T) {
	o := small(t)
	d := mustOpen(t, o)
	var wg sync.WaitGroup
	versions := make([]int64, 50)
	for i := range 50 {
		wg.Go(func() {
			for j := range 40 {
				v, err := d.Set(SetRequest{Key: Key{"1", fmt.Sprint(i)}, Data: fmt.Appendf(nil, "value %d %d", i, j), Type: "a/b", Check: versions[i]})
				if err != nil || v <= versions[i] {
					t.Error(v, err)
				}
				versions[i] = v
			}
		})
	}
	wg.Wait()
	check := func() {
		t.Helper()
		for i := range 50 {
			v, err := d.Get(Key{"1", fmt.Sprint(i)})
			if err != nil || string(v.Data) != fmt.Sprintf("value %d 39", i) || v.Type != "a/b" || v.Version != versions[i] {
				t.Fatal(v, err)
			}
		}
	}
	check()
	mustClose(t, d)
	d = mustOpen(t, o)
	check()
	var conflict *ConflictError
	if err := d.DeleteValue(Key{"1", "7"}, versions[7]-1); !errors.As(err, &conflict) {
		t.Fatal(err)
	}
	if err := d.DeleteValue(Key{"1", "7"}, versions[7]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(Key{"1", "7"}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = mustOpen(t, o)
	if _, err := d.Get(Key{"1", "7"}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	v, err := d.Set(SetRequest{Key: Key{"1", "7"}, Check: 0})
	if err != nil || v <= versions[7] {
		t.Fatal(v, err)
	}
	mustClose(t, d)
}

// While the process runs a ttl is counted on the monotonic clock.
func TestStepOfTheWallClockNeitherEndsNorProlongsAValue(t *testing.T) {
	for _, step := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		clock := newTestClock()
		d := mustOpen(t, tiny(memdisk.New(), clock))
		create := func(id string) error {
			_, err := d.Set(SetRequest{Key: Key{"1", id}, Data: []byte(id), TTL: time.Hour})
			return err
		}
		want := func(when string, there bool) {
			t.Helper()
			for _, id := range []string{"before the step", "after it"} {
				if _, err := d.Get(Key{"1", id}); errors.Is(err, ErrNotFound) == there {
					t.Errorf("a step of %v, %s: the value that was set %s: %v", step, when, id, err)
				}
				var conflict *ConflictError
				if err := create(id); errors.As(err, &conflict) != there {
					t.Errorf("a step of %v, %s: to create what was set %s anew: %v", step, when, id, err)
				}
			}
		}
		for _, id := range []string{"before the step", "after it"} {
			if err := create(id); err != nil {
				t.Fatal(err)
			}
			if id == "before the step" {
				clock.step(step)
			}
		}
		clock.pass(time.Hour - 1)
		want("just before its time", true)
		clock.pass(1)
		want("at its time", false)
		mustClose(t, d)
	}
}
