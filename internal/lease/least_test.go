package lease

import "testing"

func TestLockStaysHeldUntilTheEndOfItsLeastTime(t *testing.T) {
	r := newRig(10)
	token := r.take(t, Request{Owner: ann, Dur: 10, Least: 50})
	r.now = 5
	wantStep(t, r.release(ann, 0, false), Released, "rests by release ann/1 until 50")
	refused := map[string]Request{
		"another":      {Owner: bob, Dur: 10},
		"the same id":  {Owner: ann, Dur: 10},
		"without id":   {Dur: 10},
		"another mode": {Owner: ann, Dur: 10, Limit: Shared},
	}
	for name, q := range refused {
		if got, _ := r.acquire(q); got.Outcome != Held || got.Holder.Token != token {
			t.Errorf("%s: got %+v, want it refused", name, got)
		}
	}
	if got, _ := r.acquire(Request{Token: token, Dur: 10}); got.Outcome != NotHolder {
		t.Errorf("the token of a hold at rest renews: %+v", got)
	}
	if h, ok := r.Holder(5, door, token); ok {
		t.Errorf("the token of a hold at rest fences: %+v", h)
	}
	r.wait(t, Request{Owner: ann, Dur: 10})
	wantText(t, r.expire(49))
	wantText(t, r.expire(50), "ended by expiry ann/1 until 50", "granted ann/2 until 60 to ann")
	if s := r.Stats(); s.Expired != 0 {
		t.Errorf("the end of a rest counts as a hold that expired: %+v", s)
	}
}

func TestHoldThatExpiresBeforeItsLeastTimeRests(t *testing.T) {
	r := newRig(10)
	token := r.take(t, Request{Owner: ann, Dur: 10, Least: 50})
	r.wait(t, Request{Owner: bob, Dur: 10, Wait: 30})
	if h, ok := r.Oldest(20, door); !ok || !h.Resting || h.Expires != 50 {
		t.Errorf("before it is swept: %+v, %t", h, ok)
	}
	wantText(t, r.expire(10), "rests by expiry ann/1 until 50")
	if _, ok := r.Holder(10, door, token); ok {
		t.Error("the token of a hold that expired fences")
	}
	wantText(t, r.expire(60), "timed out to bob", "ended by expiry ann/1 until 50")
	wantEmpty(t, r)
}

func TestReleaseAfterTheLeastTimeEndsTheHold(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 100, Least: 50})
	r.now = 50
	wantStep(t, r.release(ann, 0, false), Released, "ended by release ann/1 until 100")
}

// An unlock whose answer was lost is sent again.
func TestReleaseOfAHoldAtRestIsSafeToRepeat(t *testing.T) {
	for _, owner := range []string{"", ann} {
		r := newRig(10)
		token := r.take(t, Request{Owner: owner, Dur: 10, Least: 50})
		r.release(owner, 0, false)
		wantStep(t, r.release(owner, 0, false), AtRest)
		wantStep(t, r.release("", token, false), AtRest)
		wantStep(t, r.release("eve", 0, false), NotHolder)
		wantStep(t, r.release("", 9, false), NotHolder)
		wantStep(t, r.GiveBack(0, door, token), NotHolder)
	}
}

func TestForceEndsARest(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10, Least: 50})
	r.release(ann, 0, false)
	r.wait(t, Request{Owner: bob, Dur: 10})
	wantStep(t, r.release("", 0, true), Released, "ended by force ann/1 until 50", "granted bob/2 until 10 to bob")
	r.release("", 0, true)
	r.take(t, Request{Owner: "cid", Dur: 10, Least: 50})
	wantStep(t, r.release("", 0, true), Released, "ended by force cid/3 until 10") // it does not rest
	wantEmpty(t, r)
}

func TestHoldAtRestCountsForTheRule(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10, Least: 50, Limit: 2})
	r.release(ann, 0, false)
	if token := r.take(t, Request{Owner: ann, Dur: 10, Limit: 2}); token != 2 { // as any other: there is room for two
		t.Fatalf("got token %d, want 2", token)
	}
	if got, _ := r.acquire(Request{Owner: bob, Dur: 10, Limit: 2}); got.Outcome != Held {
		t.Fatalf("got %+v", got)
	}
	wantStep(t, r.release(ann, 0, false), Released, "ended by release ann/2 until 10")
}

func TestRenewalMayExtendTheLeastTime(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10, Least: 50})
	for _, least := range []int64{0, 20, 80} {
		got, _ := r.acquire(Request{Owner: ann, Dur: 10, Least: least})
		if want := max(50, least); got.Outcome != Renewed || got.Holder.Least != want {
			t.Fatalf("least %d: got %+v, want it held until %d", least, got, want)
		}
	}
}
