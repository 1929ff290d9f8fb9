package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

func TestHeldLockSurvivesARestartUntilItsEnd(t *testing.T) {
	for _, how := range []string{"close", "kill", "power cut"} {
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		owner := strings.Repeat("o", MaxOwner)
		token := hold(t, d, owner, time.Minute)
		renewed, err := d.Lock(context.Background(), LockRequest{Key: door, Token: token, Dur: 2 * time.Minute})
		if renewed != token || err != nil {
			t.Fatal(renewed, err)
		}
		waiting := wait(t, d, context.Background(), 1, "waiting")
		next := fs
		switch how {
		case "kill":
			next = fs.Reopen()
		case "power cut":
			next = fs.Cut(fs.Len()).Nothing()
		}
		mustClose(t, d)
		if g := <-waiting; !errors.Is(g.err, ErrStopping) {
			t.Errorf("who waited: %+v", g)
		}
		// A new process has another monotonic clock.
		after := newTestClock()
		after.mono = 12345
		after.step(119 * time.Second)
		d = mustOpen(t, tiny(next, after))
		wantHolder(t, d, Holder{Owner: owner, Token: token, TTL: time.Second, Expires: time.Unix(0, epoch).Add(2 * time.Minute)})
		after.pass(time.Second)
		if got := hold(t, d, "next", time.Minute); got <= token {
			t.Errorf("%s: token %d after %d", how, got, token)
		}
		mustClose(t, d)
		after.pass(time.Hour)
		d = mustOpen(t, tiny(next, after))
		if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: a lock that ended while the server was down: %v", how, err)
		}
		if n := d.Stats().Tables; used(n) != 0 {
			t.Errorf("%s: an expired lock still has its slot: %+v", how, n)
		}
		mustClose(t, d)
	}
}

func TestStepOfTheWallClockNeitherFreesNorProlongsAHold(t *testing.T) {
	for _, step := range []time.Duration{-24 * time.Hour, -time.Minute, time.Minute, 24 * time.Hour} {
		clock := newTestClock()
		d := mustOpen(t, tiny(memdisk.New(), clock))
		token := hold(t, d, "me", time.Hour)
		clock.step(step)
		clock.pass(time.Hour - 1)
		wantHolder(t, d, Holder{Owner: "me", Token: token, TTL: 1, Expires: time.Unix(0, epoch).Add(time.Hour + step)})
		clock.pass(1)
		if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
			t.Errorf("stepped by %v: %v", step, err)
		}
		mustClose(t, d)
	}
}

func TestLocksThatAreOverGiveTheirSlotsBack(t *testing.T) {
	clock := newTestClock()
	d := mustOpen(t, tiny(memdisk.New(), clock))
	for i := range 1000 {
		_, err := d.Lock(context.Background(), LockRequest{Key: Key{"a", fmt.Sprint(i)}, Dur: time.Second})
		wantDone(t, "locking", err)
		clock.pass(time.Second)
	}
	if _, err := d.LockHolder(door); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	st := d.Stats().Tables
	for class, c := range st.Classes {
		if c.Capacity > 4*4096/uint64(len(st.Classes)) || c.Used > 1 {
			t.Errorf("table %d after 1000 locks, one at a time: %+v", class, c)
		}
	}
	mustClose(t, d)
}

func TestTokenIsNeverGrantedTwice(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	last := int64(0)
	for life := range 30 {
		d := mustOpen(t, tiny(fs, clock))
		for i := range life % 4 {
			var token int64
			var err error
			if i%2 == 0 {
				token, err = d.LockMutex(context.Background(), LockRequest{Key: door, Owner: fmt.Sprint(i), Dur: time.Hour})
				wantDone(t, "unlocking", d.UnlockMutex(UnlockRequest{Key: door, Token: token}))
			} else {
				token = hold(t, d, "", time.Hour)
				unlock(t, d, token)
			}
			if err != nil || token <= last {
				t.Fatalf("life %d: token %d after %d, %v", life, token, last, err)
			}
			last = token
		}
		switch life % 3 {
		case 1:
			fs = fs.Reopen()
		case 2:
			fs = fs.Cut(fs.Len()).Nothing()
		}
		mustClose(t, d)
	}
}

func TestTokensGoOnPastTheirBlock(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	d.tokens.Skip(3)
	var last int64
	for range 10 {
		last = hold(t, d, "", time.Hour)
		unlock(t, d, last)
		crashed := mustOpen(t, tiny(fs.Cut(fs.Len()).Nothing(), clock))
		if next := hold(t, crashed, "", time.Hour); next <= last {
			t.Fatalf("token %d, and after a crash %d", last, next)
		}
		mustClose(t, crashed)
	}
	mustClose(t, d)
}
