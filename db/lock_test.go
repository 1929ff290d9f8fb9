package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

var door = Key{"a", "door"}

// awaitQueue waits until n callers wait for a lock.
func awaitQueue(t *testing.T, d *DB, k Key, n int) {
	t.Helper()
	for {
		h, err := d.LockHolder(k)
		if err != nil {
			t.Error(err)
			return
		}
		if h.Waiters == n {
			return
		}
		runtime.Gosched()
	}
}

// grant is the answer to a call that waits for a lock.
type grant struct {
	owner string
	token int64
	err   error
}

// wait makes owner wait for the door, as the n-th in the queue.
func wait(t *testing.T, d *DB, ctx context.Context, n int, owner string) chan grant {
	t.Helper()
	got := make(chan grant, 1)
	go func() {
		token, err := d.Lock(ctx, LockRequest{Key: door, Owner: owner, Dur: time.Hour, Wait: time.Hour})
		got <- grant{owner, token, err}
	}()
	awaitQueue(t, d, door, n)
	return got
}

func hold(t *testing.T, d *DB, owner string, dur time.Duration) int64 {
	t.Helper()
	token, err := d.Lock(context.Background(), LockRequest{Key: door, Owner: owner, Dur: dur})
	wantDone(t, "locking", err)
	return token
}

func unlock(t *testing.T, d *DB, token int64) {
	t.Helper()
	wantDone(t, "unlocking", d.Unlock(UnlockRequest{Key: door, Token: token}))
}

func wantHolder(t *testing.T, d *DB, want Holder) {
	t.Helper()
	got, err := d.LockHolder(door)
	if err != nil || got != want {
		t.Errorf("the holder is %+v, %v; want %+v", got, err, want)
	}
}

func TestLockWaitersAreServedInOrder(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	var queue []chan grant
	for i := range 20 {
		queue = append(queue, wait(t, d, context.Background(), i+1, fmt.Sprint(i)))
	}
	for i, next := range queue {
		commits := d.Stats().Commits
		unlock(t, d, token)
		g := <-next
		if g.err != nil || g.token <= token {
			t.Fatalf("%+v after token %d", g, token)
		}
		token = g.token
		wantHolder(t, d, Holder{Owner: g.owner, Token: token, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour), Waiters: len(queue) - i - 1})
		if n := d.Stats().Commits - commits; n != 1 {
			t.Fatalf("a hand-over took %d commits", n)
		}
	}
	unlock(t, d, token)
	if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	mustClose(t, d)
}

func TestExpiredLockIsHandedOver(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	token := hold(t, d, "holder", time.Minute)
	next := wait(t, d, context.Background(), 1, "next")
	clock.pass(time.Minute - 1)
	wantHolder(t, d, Holder{Owner: "holder", Token: token, TTL: 1, Expires: time.Unix(0, epoch).Add(time.Minute), Waiters: 1})
	clock.pass(1)
	d.writer.Wake()
	if g := <-next; g.err != nil || g.token <= token {
		t.Fatalf("%+v", g)
	}
	wantHolder(t, d, Holder{Owner: "next", Token: token + 1, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour + time.Minute)})
	var held *HeldError
	if err := d.Unlock(UnlockRequest{Key: door, Token: token}); !errors.As(err, &held) || held.Holder.Owner != "next" {
		t.Errorf("the former holder unlocks: %v", err)
	}
	mustClose(t, d)
}

// With the machine's clock, only the writer's own timer notices that the time has come.
func TestWriterWakesUpForTheEndOfAHoldOrAWait(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Clock = nil
	d := mustOpen(t, o)
	// The hold may end before the next caller asks, if the machine is busy. It is longer each time.
	for dur := 20 * time.Millisecond; ; dur *= 2 {
		hold(t, d, "holder", dur)
		_, err := d.Lock(context.Background(), LockRequest{Key: door, Owner: "short", Dur: time.Hour, Wait: time.Millisecond})
		if isHeld(err) {
			break
		}
		if err != nil || dur > 10*time.Second {
			t.Fatalf("who waits shorter than %v: %v", dur, err)
		}
		wantDone(t, "unlocking", d.Unlock(UnlockRequest{Key: door, Owner: "short"}))
	}
	if _, err := d.Lock(context.Background(), LockRequest{Key: door, Owner: "long", Dur: time.Hour, Wait: time.Hour}); err != nil {
		t.Errorf("who waits longer: %v", err)
	}
	mustClose(t, d)
}

func TestHangUpLeavesTheQueue(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := wait(t, d, ctx, 1, "first")
	second := wait(t, d, context.Background(), 2, "second")
	hangUp(gone)
	if g := soon(t, "the answer to the first", first); !errors.Is(g.err, gone) {
		t.Errorf("%+v", g)
	}
	awaitQueue(t, d, door, 1)
	unlock(t, d, token)
	if g := soon(t, "the answer to the second", second); g.err != nil {
		t.Errorf("%+v", g)
	}
	mustClose(t, d)
}

func TestHangUpDuringAGrantPassesTheLockOn(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	gone := errors.New("gone")
	ctx, hangUp := context.WithCancelCause(context.Background())
	first := wait(t, d, ctx, 1, "first")
	second := wait(t, d, context.Background(), 2, "second")
	g := fs.NewBarrier()
	go func() { _ = d.Unlock(UnlockRequest{Key: door, Token: token}) }()
	<-g.Reached // the grant to the first is on its way to disk
	hangUp(gone)
	g.Open()
	if g := soon(t, "the answer to the first", first); !errors.Is(g.err, gone) {
		t.Errorf("%+v", g)
	}
	if g := soon(t, "the answer to the second", second); g.err != nil {
		t.Errorf("%+v", g)
	}
	wantHolder(t, d, Holder{Owner: "second", Token: token + 2, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour)})
	mustClose(t, d)
}

// hungUp is the context of a caller whose connection is closed but whose context is not
// cancelled yet.
type hungUp struct{ context.Context }

func (hungUp) Gone() bool { return true }

func TestLockIsNotGrantedToAnUnnoticedHangUp(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	first := wait(t, d, hungUp{context.Background()}, 1, "first")
	second := wait(t, d, context.Background(), 2, "second")
	unlock(t, d, token)
	if g := soon(t, "the answer to the first", first); !errors.Is(g.err, context.Canceled) {
		t.Errorf("who hung up got %+v", g)
		unlock(t, d, g.token)
	}
	if g := soon(t, "the answer to the second", second); g.err != nil || g.token != token+2 {
		t.Errorf("the next got %+v", g)
	}
	mustClose(t, d)
}

func TestDrainAnswersWaiters(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	var all []chan grant
	for i := range 5 {
		all = append(all, wait(t, d, context.Background(), i+1, fmt.Sprint(i)))
	}
	d.Drain()
	for _, c := range all {
		if g := <-c; !errors.Is(g.err, ErrStopping) {
			t.Errorf("%+v", g)
		}
	}
	if _, err := d.Lock(context.Background(), LockRequest{Key: door, Owner: "late", Dur: time.Hour, Wait: time.Hour}); !errors.Is(err, ErrStopping) {
		t.Errorf("who comes to wait later: %v", err)
	}
	// Other calls go on.
	wantHolder(t, d, Holder{Owner: "holder", Token: token, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour)})
	unlock(t, d, token)
	hold(t, d, "next", time.Hour)
	mustClose(t, d)
}

func TestNoMoreWaitersThanMay(t *testing.T) {
	o := tiny(memdisk.New(), newTestClock())
	o.Waiters = 2
	d := mustOpen(t, o)
	token := hold(t, d, "holder", time.Hour)
	first := wait(t, d, context.Background(), 1, "first")
	second := wait(t, d, context.Background(), 2, "second")
	late := LockRequest{Key: door, Owner: "late", Dur: time.Hour, Wait: time.Hour}
	if _, err := d.Lock(context.Background(), late); !errors.Is(err, ErrWaiters) {
		t.Errorf("a third: %v", err)
	}
	_, err := d.LockMutex(context.Background(), LockRequest{Key: door, Owner: "holder", Dur: time.Hour})
	wantDone(t, "a mutex that is free", err)
	if _, err := d.LockMutex(context.Background(), late); !errors.Is(err, ErrWaiters) {
		t.Errorf("a third, for a mutex: %v", err)
	}
	unlock(t, d, token)
	unlock(t, d, soon(t, "the answer to the first", first).token)
	unlock(t, d, soon(t, "the answer to the second", second).token)
	mustClose(t, d)
}

// The next holder's id may have the greatest length: it takes over the existing slot.
func TestHandOverNeedsNoNewSlot(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	token := hold(t, d, "", time.Hour)
	next := wait(t, d, context.Background(), 1, strings.Repeat("n", MaxOwner))
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate {
			return syscall.ENOSPC
		}
		return nil
	})
	fill := 0
	for ; !errors.Is(addN(d, idLike(door, fill), 1), ErrFull); fill++ {
	}
	unlock(t, d, token)
	if g := <-next; g.err != nil {
		t.Errorf("%+v", g)
	}
	mustClose(t, d)
}

// idLike makes ids whose counters have slots of the size that a lock's has.
func idLike(k Key, i int) string {
	return fmt.Sprint(i, strings.Repeat("x", holdSize-numberSize+len(k.ID)))
}

func TestRenewalByTokenNeverTakesALock(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	var held *HeldError
	for _, token := range []int64{1, 7} {
		_, err := d.Lock(context.Background(), LockRequest{Key: door, Token: token, Dur: time.Hour, Wait: time.Hour})
		if !errors.As(err, &held) || held.Holder != (Holder{}) {
			t.Errorf("renewing a free lock with token %d: %v", token, err)
		}
	}
	if n := used(d.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
	mustClose(t, d)
}

func TestRefusedUnlockNamesTheHolderAndChangesNothing(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "me", time.Hour)
	want := Holder{Owner: "me", Token: token, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour)}
	reasons := []string{}
	for _, r := range []UnlockRequest{{}, {Owner: "you"}, {Token: token + 1}, {Owner: "you", Token: token}, {Owner: "me", Token: token + 1}} {
		r.Key = door
		var held *HeldError
		if err := d.Unlock(r); !errors.As(err, &held) || held.Holder != want || strings.Contains(held.Reason, "\n") {
			t.Errorf("%+v: %v", r, err)
		}
		reasons = append(reasons, held.Reason)
		wantHolder(t, d, want)
	}
	if slices.Contains(reasons, "") {
		t.Errorf("%q", reasons)
	}
	wantDone(t, "with force", d.Unlock(UnlockRequest{Key: door, Force: true}))
	wantDone(t, "once more", d.Unlock(UnlockRequest{Key: door, Token: token}))
	mustClose(t, d)
}
