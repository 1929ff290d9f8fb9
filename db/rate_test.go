package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

var (
	pace = Key{"a", "pace"}
	slow = Rate{Limit: 60, Per: time.Minute, Burst: 3} // three at once, then one a second
)

func take(d *DB, r Rate, cost int64) (int64, error) {
	s, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: r, Cost: cost})
	return s.Left, err
}

// wantTaken counts cost and checks how many are left.
func wantTaken(t *testing.T, d *DB, r Rate, cost, left int64) {
	t.Helper()
	if got, err := take(d, r, cost); got != left || err != nil {
		t.Fatalf("%d of %+v: %d are left, %v; want %d", cost, r, got, err, left)
	}
}

func wantRefused(t *testing.T, err error, left int64, retry time.Duration) {
	t.Helper()
	var refused *RateError
	if !errors.As(err, &refused) || refused.State.Left != left || refused.Retry != retry {
		t.Fatalf("got %v (%+v), want it refused with %d left, and allowed in %v", err, refused, left, retry)
	}
}

func wantLeft(t *testing.T, d *DB, r Rate, left int64) {
	t.Helper()
	if s, err := d.ReadRate(pace, r); s.Left != left || err != nil {
		t.Fatalf("%+v are left, %v; want %d", s, err, left)
	}
}

func awaitPace(t *testing.T, d *DB, n int64) {
	t.Helper()
	for {
		if _, err := d.ReadRate(pace, slow); err != nil { // a batch
			t.Error(err)
			return
		}
		if d.rates.waiting.Load() == n {
			return
		}
		runtime.Gosched()
	}
}

// paced makes a call wait for the rate pace, as the n-th in the queue.
func paced(t *testing.T, d *DB, ctx context.Context, n int64, cost int64) chan error {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		_, err := d.TakeRate(ctx, RateRequest{Key: pace, Rate: slow, Cost: cost, Wait: time.Minute})
		got <- err
	}()
	awaitPace(t, d, n)
	return got
}

func TestRateAllowsTheBurstAndThenItsPace(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantLeft(t, d, slow, 3)
	wantTaken(t, d, slow, 1, 2)
	wantTaken(t, d, slow, 2, 0)
	_, err := take(d, slow, 1)
	wantRefused(t, err, 0, time.Second)
	_, err = take(d, slow, 3)
	wantRefused(t, err, 0, 3*time.Second)
	clock.pass(time.Second - 1)
	_, err = take(d, slow, 1)
	wantRefused(t, err, 0, 1)
	clock.pass(1)
	wantLeft(t, d, slow, 1)
	wantTaken(t, d, slow, 1, 0)
	clock.pass(time.Hour)
	wantLeft(t, d, slow, 3)
	mustClose(t, d)
}

func TestRateThatIsFullAgainTakesNoRoom(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	for i := range 1000 {
		_, err := d.TakeRate(context.Background(), RateRequest{Key: Key{"a", fmt.Sprint(i)}, Rate: slow, Cost: 1})
		wantDone(t, "a call", err)
		clock.pass(time.Second)
	}
	wantLeft(t, d, slow, 3)
	st := d.Stats().Tables
	for class, c := range st.Classes {
		if c.Capacity > 4*4096/uint64(len(st.Classes)) || c.Used > 0 {
			t.Errorf("table %d after 1000 rates, one at a time: %+v", class, c)
		}
	}
	// Over a restart too.
	wantTaken(t, d, slow, 3, 0)
	mustClose(t, d)
	clock.pass(3 * time.Second)
	d = mustOpen(t, tiny(fs, clock))
	wantLeft(t, d, slow, 3)
	if n := used(d.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use after a restart", n)
	}
	mustClose(t, d)
}

// The slot of a rate that is full again may be given back in the very batch in which
// the next call, which waited until then, is counted.
func TestCallThatWaitsUntilARateIsFullIsCounted(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	for range 20 {
		wantTaken(t, d, slow, 3, 0)
		next := paced(t, d, context.Background(), 1, 3)
		clock.pass(3 * time.Second)
		d.writer.Wake()
		wantDone(t, "the next", soon(t, "the next", next))
		wantLeft(t, d, slow, 0)
		clock.pass(time.Hour)
	}
	mustClose(t, d)
}

// Another limit continues from the same instant.
func TestRateWithAnotherLimitGoesOn(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0) // a backlog of 3 s
	wantLeft(t, d, Rate{Limit: 10, Per: 10 * time.Second, Burst: 10}, 7)
	wantLeft(t, d, Rate{Limit: 10, Per: time.Second, Burst: 10}, 0)
	wantTaken(t, d, Rate{Limit: 1, Per: time.Hour, Burst: 2}, 1, 0)
	mustClose(t, d)
}

func TestRateSurvivesARestart(t *testing.T) {
	for _, how := range []string{"close", "kill", "power cut"} {
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		wantTaken(t, d, slow, 3, 0)
		next := fs
		switch how {
		case "kill":
			next = fs.Reopen()
		case "power cut":
			next = fs.Cut(fs.Len()).Nothing()
		}
		mustClose(t, d)
		clock.restart()
		d = mustOpen(t, tiny(next, clock))
		wantLeft(t, d, slow, 0)
		clock.pass(time.Second)
		wantLeft(t, d, slow, 1)
		mustClose(t, d)
	}
}

func TestCallsThatWaitForARateAreServedInOrder(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantTaken(t, d, slow, 3, 0)
	first := paced(t, d, context.Background(), 1, 2)
	second := paced(t, d, context.Background(), 2, 1)
	clock.pass(time.Second)
	d.writer.Wake()
	// One is allowed now, but the first caller wants two, and nobody overtakes it.
	wantLeft(t, d, slow, 0)
	_, err := take(d, slow, 1)
	wantRefused(t, err, 0, 3*time.Second)
	awaitPace(t, d, 2)
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the first", soon(t, "the first", first))
	awaitPace(t, d, 1)
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the second", soon(t, "the second", second))
	wantLeft(t, d, slow, 0)
	mustClose(t, d)
}

// With the machine's clock, only the writer's own timer notices that the time has come.
func TestWriterWakesUpWhenARateAllowsACall(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Clock = nil
	d := mustOpen(t, o)
	fast := Rate{Limit: 100, Per: time.Second, Burst: 1}
	for range 3 {
		_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: fast, Cost: 1, Wait: time.Hour})
		wantDone(t, "a paced call", err)
	}
	mustClose(t, d)
}

func TestCallThatCannotBeServedInTimeTakesNoPlace(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0)
	ctx, hangUp := context.WithCancel(context.Background())
	first := paced(t, d, ctx, 1, 3)
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: 4*time.Second - 1})
	wantRefused(t, err, 0, 4*time.Second)
	awaitPace(t, d, 1)
	// The other rate would allow this call at once, but the first call is ahead of it.
	other := Rate{Limit: 1000, Per: time.Second, Burst: 1_000_000}
	_, err = d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: other, Cost: 1, Wait: time.Second})
	wantRefused(t, err, 0, 3*time.Second)
	hangUp()
	if err := soon(t, "who hung up", first); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustClose(t, d)
}

func TestHangUpGivesBackThePlaceInTheQueueOfARate(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	wantTaken(t, d, slow, 3, 0)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := paced(t, d, ctx, 1, 3)
	second := paced(t, d, context.Background(), 2, 1)
	hangUp(gone)
	if err := soon(t, "who hung up", first); !errors.Is(err, gone) {
		t.Error(err)
	}
	clock.pass(time.Second)
	d.writer.Wake()
	wantDone(t, "the second", soon(t, "the second", second))
	mustClose(t, d)
}

func TestHangUpGivesBackWhatWasCountedForIt(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	wantTaken(t, d, slow, 3, 0)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := paced(t, d, ctx, 1, 3)
	g := fs.NewBarrier()
	clock.pass(3 * time.Second)
	d.writer.Wake()
	<-g.Reached // its count is on the way to disk
	hangUp(gone)
	g.Open()
	if err := soon(t, "who hung up", first); !errors.Is(err, gone) {
		t.Error(err)
	}
	wantLeft(t, d, slow, 3)
	if n := used(d.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
	mustClose(t, d)
}

func TestDeletedRateServesItsWaiters(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	wantTaken(t, d, slow, 3, 0)
	first := paced(t, d, context.Background(), 1, 3)
	second := paced(t, d, context.Background(), 2, 1)
	wantDone(t, "forgetting", d.ForgetRate(pace))
	wantDone(t, "the first", soon(t, "the first", first))
	awaitPace(t, d, 1)
	d.Drain()
	if err := soon(t, "the second", second); !errors.Is(err, ErrStopping) {
		t.Error(err)
	}
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: time.Hour})
	if !errors.Is(err, ErrStopping) {
		t.Errorf("who comes to wait later: %v", err)
	}
	if n := d.rates.limit.Waiting(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
	mustClose(t, d)
}

func TestNoMoreWaitForARateThanMay(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Waiters = 1
	d := mustOpen(t, o)
	wantTaken(t, d, slow, 3, 0)
	paced(t, d, context.Background(), 1, 3)
	_, err := d.TakeRate(context.Background(), RateRequest{Key: pace, Rate: slow, Cost: 1, Wait: time.Hour})
	if !errors.Is(err, ErrWaiters) {
		t.Errorf("a second: %v", err)
	}
	mustClose(t, d)
}
