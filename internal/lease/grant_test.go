package lease

import (
	"fmt"
	"testing"
)

func TestUnansweredGrantGoesToTheNextWaiter(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10, Least: 50})
	r.wait(t, Request{Owner: "cid", Dur: 10})
	r.release(ann, 0, false)
	wantStep(t, r.GiveBack(0, door, 1), NotHolder)
	wantStep(t, r.GiveBack(0, door, 2), Released, "ended by give back bob/2 until 10", "granted cid/3 until 10 to cid") // it does not rest
	wantStep(t, r.GiveBack(9, door, 3), Released, "ended by give back cid/3 until 10")
	wantStep(t, r.GiveBack(9, door, 3), NotLocked)
	wantEmpty(t, r)
}

// A client loses its connection while it waits and retries. The retry learns that it holds the lock before the server
// notices that the first request is gone.
func TestGrantThatWasRenewedIsNotGivenBack(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.wait(t, Request{Owner: "cid", Dur: 10})
	r.release(ann, 0, false)
	r.acquire(Request{Owner: bob, Dur: 10, Wait: 100})
	wantStep(t, r.GiveBack(0, door, 2), Kept)
	wantStep(t, r.release(bob, 0, false), Released, "ended by release bob/2 until 10", "granted cid/3 until 10 to cid")
	wantStep(t, r.GiveBack(0, door, 3), Released, "ended by give back cid/3 until 10") // the new hold counts as not renewed
}

func TestGrantIsKeptForTheOtherWaiterOfItsId(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.release(ann, 0, false)
	wantStep(t, r.GiveBack(0, door, 2), Kept)
	wantStep(t, r.GiveBack(0, door, 2), Released, "ended by give back bob/2 until 10")
}

func TestClaimWithoutATokenIsRefusedAndTheNextIsTried(t *testing.T) {
	r := newRig(10)
	r.fail = fmt.Errorf("no more")
	got, _ := r.acquire(Request{Dur: 10})
	if wantStep(t, got, NoToken); got.Err == nil {
		t.Fatal("no error")
	}
	wantEmpty(t, r)
	r.take(t, Request{Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.wait(t, Request{Owner: "cid", Dur: 10})
	r.fail = fmt.Errorf("no more")
	wantStep(t, r.release("", 0, false), Released, "ended by release /1 until 10", "refused to bob to bob: no more", "granted cid/2 until 10 to cid")
}

func TestRestoredHoldersAreHoldersInTheOrderOfTheirGrants(t *testing.T) {
	r := newRig(10)
	r.last = 42
	holders := []Holder{
		{Owner: "cid", Token: 42, Granted: -5, Expires: 10, Limit: 3},
		{Owner: ann, Token: 40, Granted: -7, Expires: 20, Limit: 3},
		{Owner: bob, Token: 41, Granted: -6, Expires: 30, Least: 30, Limit: 3, Resting: true},
	}
	for _, h := range holders {
		r.Restore(door, h)
	}
	got := r.Holders(0, door, 10)
	if len(got) != 3 || got[0] != holders[1] || got[1] != holders[2] || got[2] != holders[0] {
		t.Fatalf("got %+v", got)
	}
	if got := r.Holders(0, door, 2); len(got) != 2 {
		t.Fatalf("got %+v, want 2", got)
	}
	r.wait(t, Request{Owner: "eve", Dur: 5, Limit: 3})
	wantText(t, r.expire(10), "ended by expiry cid/42 until 10", "granted eve/43 until 15 to eve")
	if s := r.Stats(); s.Expired != 1 || s.Held != 1 || s.Holders != 3 {
		t.Fatalf("got %+v", s)
	}
	wantText(t, r.expire(30), "ended by expiry eve/43 until 15", "ended by expiry ann/40 until 20", "ended by expiry bob/41 until 30")
	wantEmpty(t, r)
}
