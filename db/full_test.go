package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// addN adds to a counter without bounds.
func addN(d *DB, id string, n int64) error {
	_, err := d.AddCounter(Key{"a", id}, n, math.MinInt64, math.MaxInt64)
	return err
}

// long is an id of the largest slots, of which there are few.
func long(i int) string { return fmt.Sprint(i, strings.Repeat("x", 250)) }

// wantFull checks that a call was refused for lack of room and for no other reason.
func wantFull(t *testing.T, d *DB, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrFull) {
		t.Fatalf("%s: %v, want ErrFull", what, err)
	}
	if d.Err() != nil {
		t.Fatalf("%s: writes are stopped: %v", what, d.Err())
	}
}

func wantDone(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestFullDiskRefusesOnlyWhatNeedsANewSlot(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	full := func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate && strings.Contains(op.Name, "slots-") {
			return memdisk.Short(1000, syscall.ENOSPC)
		}
		return nil
	}
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	lock := LockRequest{Key: Key{"a", long(0)}, Owner: "me", Dur: time.Hour}
	token, err := d.Lock(context.Background(), lock)
	wantDone(t, "a lock", err)
	fs.Fail(full)
	n := 0
	for ; err == nil; n++ {
		err = addN(d, long(n), 1)
	}
	wantFull(t, d, "a new id", err)
	n--

	// Several lives: a start on a full disk works as well.
	for life := range 3 {
		if _, err := d.Counter(Key{"a", long(n)}); !errors.Is(err, ErrNotFound) {
			t.Fatalf("what was refused was done: %v", err)
		}
		wantFull(t, d, "a new id", addN(d, long(n), 1))
		_, err := d.Lock(context.Background(), LockRequest{Key: Key{"a", long(1)}, Dur: time.Hour})
		wantFull(t, d, "a new lock", err)
		for i := range 100 {
			wantDone(t, "an id that is there", addN(d, long(i%n), 1))
		}
		if got, err := d.Lock(context.Background(), lock); got != token || err != nil {
			t.Fatalf("renewing a lock: %d, %v", got, err)
		}
		wantDone(t, "a new id of another table", addN(d, fmt.Sprint(life), 1))
		mustClose(t, d)
		d = mustOpen(t, o)
		want := int64((life + 1) * 100 / n)
		if v, err := d.Counter(Key{"a", long(n - 1)}); v < want || err != nil {
			t.Fatalf("after a restart: %d, %v, want at least %d", v, err, want)
		}
	}
	wantDone(t, "an unlock", d.Unlock(UnlockRequest{Key: lock.Key, Token: token}))
	wantDone(t, "a new id in the slot of the lock", addN(d, long(n), 1))
	wantFull(t, d, "a new id", addN(d, long(n+1), 1))
	wantDone(t, "a reset", d.ResetCounter(Key{"a", long(0)}))
	wantDone(t, "a new id in the slot of one that was reset", addN(d, long(n+1), 1))
	fs.Fail(nil)
	for i := range 100 {
		wantDone(t, "with room again", addN(d, long(n+2+i), 1))
	}
	mustClose(t, d)
}

// If nothing can be freed, a refused call does not start a checkpoint, however often clients
// repeat it.
func TestARefusalOnAFullDiskCostsNoCheckpoint(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	o.QuietAfter = time.Hour
	d := mustOpen(t, o)
	wantDone(t, "a second segment", d.store.PrepareSegment())
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate {
			return syscall.ENOSPC
		}
		return nil
	})
	set := func(n int) error {
		_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 1000), Check: AnyVersion})
		return err
	}
	n := 0
	for ; ; n++ {
		if err := set(n); err != nil {
			wantFull(t, d, "a value", err)
			break
		}
	}
	before := d.Stats().Checkpoints
	for range 20 {
		wantFull(t, d, "a value", set(n))
	}
	if after := d.Stats().Checkpoints; after > before+1 { // one may have been due in the background
		t.Errorf("%d checkpoints for 20 refusals", after-before)
	}
	fs.Fail(nil)
	wantDone(t, "a value, with room again", set(n))
	mustClose(t, d)
}

// On a completely full disk each call is done or refused as a whole, calls that free room can
// use the reserve, and a restart changes nothing.
func TestFullDiskLosesNothing(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	p := newPlayer(d, fs, clock)
	rnd := rand.New(rand.NewPCG(3, 4))
	held := make(map[Key]int64)
	step := func(i int) error {
		k := Key{"a", idOf(rnd, "", rnd.IntN(40))}
		switch rnd.IntN(6) {
		case 0, 1:
			_, err := p.add(kindSequence, k, 1)
			return err
		case 2:
			return p.reset(kindSequence, k)
		case 3:
			_, err := p.set(k, int64(i), 0)
			return err
		case 4:
			return p.remove(k)
		}
		if token := held[k]; token != 0 {
			delete(held, k)
			return p.unlock(k, token)
		}
		token, err := p.lock(context.Background(), LockRequest{Key: k, Owner: "me", Dur: time.Hour})
		held[k] = token
		return err
	}
	for i := range 100 {
		wantDone(t, "with room", step(i))
	}
	fs.SetRoom(fs.Used())
	refused := 0
	for i := range 2000 {
		if i%500 == 499 {
			mustClose(t, d)
			d = mustOpen(t, o)
			p.d = d
		}
		if err := step(i); err != nil {
			wantFull(t, d, "without room", err)
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused")
	}
	l := newLedger()
	for _, op := range fs.Journal() {
		if op.Kind == memdisk.Note {
			l.enter(op.Note)
		}
	}
	_, err := l.check(d)
	wantDone(t, "all that was answered", err)
	fs.SetRoom(-1)
	for i := range 100 {
		wantDone(t, "with room again", step(i))
	}
	mustClose(t, d)
}
