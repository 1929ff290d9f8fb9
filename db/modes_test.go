package db

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// reopened returns a database after a power cut, reopened that much later.
func reopened(t *testing.T, fs *memdisk.FS, clock *testClock, later time.Duration) (*DB, *testClock) {
	t.Helper()
	after := newTestClock()
	_, wall := clock.read()
	after.step(time.Duration(wall-epoch) + later)
	return mustOpen(t, tiny(fs.Cut(fs.Len()).Nothing(), after)), after
}

// takeDoor asks for the door without waiting.
func takeDoor(t *testing.T, d *DB, r LockRequest) (int64, error) {
	t.Helper()
	r.Key = door
	if r.Dur == 0 {
		r.Dur = time.Hour
	}
	return submit(t, d, r).answer(t)
}

func mustTake(t *testing.T, d *DB, r LockRequest) int64 {
	t.Helper()
	token, err := takeDoor(t, d, r)
	wantDone(t, fmt.Sprintf("%+v", r), err)
	return token
}

func wantNotTaken(t *testing.T, d *DB, r LockRequest) {
	t.Helper()
	if token, err := takeDoor(t, d, r); !isHeld(err) {
		t.Errorf("%+v: token %d, %v; want it refused", r, token, err)
	}
}

// tokensOf returns the tokens of all holders of the door.
func tokensOf(t *testing.T, d *DB) (all []int64) {
	t.Helper()
	h, err := d.LockHolders(door, 0)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	wantDone(t, "reading", err)
	for _, x := range h.Holders {
		all = append(all, x.Token)
	}
	return all
}

func wantTokens(t *testing.T, d *DB, want ...int64) {
	t.Helper()
	if got := tokensOf(t, d); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the holders have the tokens %v, want %v", got, want)
	}
}

func TestSemaphoreOnDiskKeepsItsHoldersAndItsLimit(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	defer func() { mustClose(t, d) }()
	var tokens []int64
	for i := range 3 {
		tokens = append(tokens, mustTake(t, d, LockRequest{Limit: 3, Dur: time.Duration(i+1) * time.Minute}))
	}
	wantNotTaken(t, d, LockRequest{Limit: 3})
	crashed, after := reopened(t, fs, clock, 0)
	defer func() { mustClose(t, crashed) }()
	wantTokens(t, crashed, tokens...)
	wantNotTaken(t, crashed, LockRequest{Limit: 3})
	// A present holder allows three, whatever the next one allows.
	wantNotTaken(t, crashed, LockRequest{Limit: 10})
	wantNotTaken(t, crashed, LockRequest{Shared: true})
	after.pass(time.Minute)
	wantTokens(t, crashed, tokens[1], tokens[2])
	wantNotTaken(t, crashed, LockRequest{Limit: 2})
	fourth := mustTake(t, crashed, LockRequest{Limit: 10})
	wantDone(t, "one gives it back", crashed.Unlock(UnlockRequest{Key: door, Token: tokens[1]}))
	wantTokens(t, crashed, tokens[2], fourth)
	var held *HeldError
	if err := crashed.Unlock(UnlockRequest{Key: door}); !errors.As(err, &held) {
		t.Errorf("one of several without a token: %v", err)
	}
	wantDone(t, "by force", crashed.Unlock(UnlockRequest{Key: door, Force: true}))
	wantTokens(t, crashed)
	if n := used(crashed.Stats().Tables); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
}

// Holds that were ended by force stay ended.
func TestForceEndsAllHoldersOnDisk(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	for range 5 {
		mustTake(t, d, LockRequest{Shared: true, Least: time.Hour})
	}
	commits := d.Stats().Commits
	wantDone(t, "by force", d.Unlock(UnlockRequest{Key: door, Force: true}))
	if n := d.Stats().Commits - commits; n != 1 {
		t.Errorf("it took %d commits", n)
	}
	crashed, _ := reopened(t, fs, clock, 0)
	wantTokens(t, crashed)
	mustTake(t, crashed, LockRequest{})
	mustClose(t, crashed)
	mustClose(t, d)
}

func TestReadersAndWritersOnDisk(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	a, b := mustTake(t, d, LockRequest{Shared: true}), mustTake(t, d, LockRequest{Shared: true})
	wantNotTaken(t, d, LockRequest{})
	writer := submit(t, d, LockRequest{Key: door, Dur: time.Hour, Wait: time.Hour})
	// The waiting writer holds up later readers.
	wantNotTaken(t, d, LockRequest{Shared: true})
	reader := submit(t, d, LockRequest{Key: door, Dur: time.Hour, Wait: time.Hour, Shared: true})
	crashed, _ := reopened(t, fs, clock, 0)
	wantTokens(t, crashed, a, b)
	c := mustTake(t, crashed, LockRequest{Shared: true}) // nobody waits there
	wantTokens(t, crashed, a, b, c)
	wantNotTaken(t, crashed, LockRequest{})
	mustClose(t, crashed)
	unlock(t, d, a)
	unlock(t, d, b)
	token, err := writer.answer(t)
	wantDone(t, "the writer", err)
	wantTokens(t, d, token)
	wantNotTaken(t, d, LockRequest{Shared: true})
	unlock(t, d, token)
	if _, err := reader.answer(t); err != nil {
		t.Error(err)
	}
	mustClose(t, d)
}

// A released hold keeps resting over a restart: its token is void, and nobody else gets the
// lock before the least time since the grant has passed.
func TestLeastTimeOutlivesARestart(t *testing.T) {
	for _, how := range []string{"given back before", "given back after", "over"} {
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		token := mustTake(t, d, LockRequest{Owner: "me", Dur: time.Minute, Least: 10 * time.Minute})
		if how == "given back before" {
			unlock(t, d, token)
		}
		later := 30 * time.Second
		if how == "over" {
			later = 2 * time.Minute
		}
		crashed, after := reopened(t, fs, clock, later)
		if how == "given back after" {
			unlock(t, crashed, token)
		}
		wantTokens(t, crashed, token)
		if _, err := crashed.LockHolders(door, token); !isHeld(err) {
			t.Errorf("%s: the token still fences: %v", how, err)
		}
		wantNotTaken(t, crashed, LockRequest{Owner: "me"})
		wantNotTaken(t, crashed, LockRequest{Token: token})
		after.pass(10*time.Minute - later - 1)
		wantNotTaken(t, crashed, LockRequest{Owner: "you"})
		after.pass(1)
		if next := mustTake(t, crashed, LockRequest{Owner: "you"}); next <= token {
			t.Errorf("%s: token %d after %d", how, next, token)
		}
		mustClose(t, crashed)
		mustClose(t, d)
	}
}

func TestReadWithATokenNamesItsHolder(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	if _, err := d.LockHolders(door, 7); !isHeld(err) {
		t.Errorf("nobody holds it: %v", err)
	}
	mustTake(t, d, LockRequest{Owner: "a", Shared: true})
	token := mustTake(t, d, LockRequest{Owner: "b", Shared: true})
	all, err := d.LockHolders(door, token)
	if err != nil || len(all.Holders) != 1 || all.Holders[0].Owner != "b" || all.Holders[0].Token != token {
		t.Errorf("%+v, %v", all, err)
	}
	var held *HeldError
	if _, err := d.LockHolders(door, token+1); !errors.As(err, &held) || held.Holder.Owner != "a" {
		t.Errorf("a token that does not hold: %v", err)
	}
	mustClose(t, d)
}

// A second call with the id of a holder renews its hold, and one that asks for another
// mode is refused.
func TestSameIdRenewsItsHoldAmongSeveral(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	a := mustTake(t, d, LockRequest{Owner: "a", Limit: 2, Dur: time.Minute})
	mustTake(t, d, LockRequest{Owner: "b", Limit: 2, Dur: time.Minute})
	if got := mustTake(t, d, LockRequest{Owner: "a", Limit: 2, Dur: time.Hour}); got != a {
		t.Errorf("renewing gives token %d, want %d", got, a)
	}
	wantNotTaken(t, d, LockRequest{Owner: "a", Limit: 3})
	wantNotTaken(t, d, LockRequest{Owner: "a", Shared: true})
	crashed, _ := reopened(t, fs, clock, time.Minute)
	wantTokens(t, crashed, a)
	mustClose(t, crashed)
	mustClose(t, d)
}
