package lease

import (
	"fmt"
	"testing"
)

const (
	ann = "ann"
	bob = "bob"
)

// Every case starts at 100 with one hold, until 110, of token 1.
func TestWhoMayAcquire(t *testing.T) {
	plain := func(owner string, token, expires int64) Holder {
		return Holder{Owner: owner, Token: token, Granted: 100, Expires: expires, Limit: 1}
	}
	granted := func(owner string, token, at, expires int64) Holder {
		return Holder{Owner: owner, Token: token, Granted: at, Expires: expires, Limit: 1}
	}
	tests := []struct {
		name    string
		holder  string
		now     int64
		request Request
		outcome Outcome
		want    Holder
	}{
		{"the same owner renews, same token", ann, 103, Request{Owner: ann, Dur: 20}, Renewed, plain(ann, 1, 123)},
		{"a renewal may shorten", ann, 103, Request{Owner: ann, Dur: 1}, Renewed, plain(ann, 1, 104)},
		{"the token renews", ann, 103, Request{Token: 1, Dur: 20}, Renewed, plain(ann, 1, 123)},
		{"the token renews a hold without an owner", "", 103, Request{Token: 1, Dur: 20}, Renewed, plain("", 1, 123)},
		{"the token alone decides, and renames nobody", ann, 103, Request{Owner: bob, Token: 1, Dur: 20}, Renewed, plain(ann, 1, 123)},
		{"another token is refused", ann, 103, Request{Token: 2, Dur: 20, Wait: 50}, NotHolder, plain(ann, 1, 110)},
		{"another token is refused though the owner matches", ann, 103, Request{Owner: ann, Token: 2, Dur: 20}, NotHolder, plain(ann, 1, 110)},
		{"an expired token acquires nothing", ann, 110, Request{Token: 1, Dur: 20, Wait: 50}, NotHolder, Holder{}},
		{"another owner is refused without a wait", ann, 103, Request{Owner: bob, Dur: 20}, Held, plain(ann, 1, 110)},
		{"nobody is refused without a wait", "", 103, Request{Dur: 20}, Held, plain("", 1, 110)},
		{"another owner queues", ann, 103, Request{Owner: bob, Dur: 20, Wait: 1}, Queued, plain(ann, 1, 110)},
		{"an instant before its end it is held", ann, 109, Request{Owner: bob, Dur: 20}, Held, plain(ann, 1, 110)},
		{"at its end it is free, swept or not", ann, 110, Request{Owner: bob, Dur: 20}, Granted, granted(bob, 2, 110, 130)},
		{"after its end its owner gets a new token", ann, 115, Request{Owner: ann, Dur: 20}, Granted, granted(ann, 2, 115, 135)},
		{"a limit of one is a plain lock", ann, 103, Request{Owner: ann, Dur: 20, Limit: 1}, Renewed, plain(ann, 1, 123)},
		{"the owner asks for another limit", ann, 103, Request{Owner: ann, Dur: 20, Limit: 2, Wait: 9}, OtherMode, plain(ann, 1, 110)},
		{"the owner asks to read", ann, 103, Request{Owner: ann, Dur: 20, Limit: Shared}, OtherMode, plain(ann, 1, 110)},
		{"the token asks for another limit", ann, 103, Request{Token: 1, Dur: 20, Limit: 2}, OtherMode, plain(ann, 1, 110)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.now = 100
			r.take(t, Request{Owner: tt.holder, Dur: 10})
			r.now = tt.now
			got, _ := r.acquire(tt.request)
			if got.Outcome != tt.outcome || got.Holder != tt.want {
				t.Fatalf("got outcome %d with %+v, want %d with %+v", got.Outcome, got.Holder, tt.outcome, tt.want)
			}
			if h, _ := r.Oldest(r.now, door); h != tt.want {
				t.Fatalf("the holder is %+v, want %+v", h, tt.want)
			}
			r.expire(1000)
			wantEmpty(t, r)
		})
	}
}

func TestWhoMayRelease(t *testing.T) {
	tests := []struct {
		name   string
		holder string
		now    int64
		owner  string
		token  int64
		force  bool
		want   Outcome
	}{
		{"by its owner", ann, 103, ann, 0, false, Released},
		{"by its token", ann, 103, "", 1, false, Released},
		{"by both", ann, 103, ann, 1, false, Released},
		{"by neither, though it has an owner", ann, 103, "", 0, false, NotHolder},
		{"by neither, and it has none", "", 103, "", 0, false, Released},
		{"by its token, and it has no owner", "", 103, "", 1, false, Released},
		{"by an owner, though it has none", "", 103, ann, 0, false, NotHolder},
		{"by another owner", ann, 103, bob, 0, false, NotHolder},
		{"by another token", ann, 103, "", 2, false, NotHolder},
		{"by another token, and it has no owner", "", 103, "", 2, false, NotHolder},
		{"by its owner with another token", ann, 103, ann, 2, false, NotHolder},
		{"by its token with another owner", ann, 103, bob, 1, false, NotHolder},
		{"by force", ann, 103, "", 0, true, Released},
		{"by force with another owner and token", ann, 103, bob, 2, true, Released},
		{"when it has expired, swept or not", ann, 110, ann, 1, false, NotLocked},
		{"when it has expired, by another", ann, 110, bob, 2, false, NotLocked},
		{"when it has expired, by force", ann, 110, "", 0, true, NotLocked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.now = 100
			r.take(t, Request{Owner: tt.holder, Dur: 10})
			r.now = tt.now
			got := r.release(tt.owner, tt.token, tt.force)
			if got.Outcome != tt.want {
				t.Fatalf("got %+v, want outcome %d", got, tt.want)
			}
			if tt.want == Released {
				wantEmpty(t, r)
				wantStep(t, r.release(tt.owner, tt.token, tt.force), NotLocked)
			}
			r.expire(1000)
			wantEmpty(t, r)
		})
	}
}

// Ann holds with token 1, nobody with tokens 2 and 3, bob with token 4.
func TestWhoMayReleaseOneOfSeveral(t *testing.T) {
	tests := []struct {
		name   string
		owner  string
		token  int64
		force  bool
		want   Outcome
		events []string
	}{
		{"an owner frees its own", bob, 0, false, Released, []string{"ended by release bob/4 until 10"}},
		{"a token frees its own", "", 3, false, Released, []string{"ended by release /3 until 10"}},
		{"owner and token must fit one holder", ann, 4, false, NotHolder, nil},
		{"owner and token of one holder", bob, 4, false, Released, []string{"ended by release bob/4 until 10"}},
		{"neither, where several have no owner", "", 0, false, Several, nil},
		{"an unknown owner", "eve", 0, false, NotHolder, nil},
		{"force frees all", "", 0, true, Released, []string{
			"ended by force ann/1 until 10", "ended by force /2 until 10", "ended by force /3 until 10", "ended by force bob/4 until 10",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, owner := range []string{ann, "", "", bob} {
				r.take(t, Request{Owner: owner, Dur: 10, Limit: 9})
			}
			wantStep(t, r.release(tt.owner, tt.token, tt.force), tt.want, tt.events...)
			r.expire(10)
			wantEmpty(t, r)
		})
	}
}

func TestTheOnlyOneWithoutAnOwnerNeedsNeitherOwnerNorToken(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10, Limit: Shared})
	r.take(t, Request{Dur: 10, Limit: Shared})
	wantStep(t, r.release("", 0, false), Released, "ended by release /2 until 10")
	wantStep(t, r.release("", 0, false), NotHolder)
}

// A grant makes no more holders than it allows itself, or than any holder allows.
func TestTheOneRule(t *testing.T) {
	tests := []struct {
		name    string
		holders []int32
		asks    int32
		fits    bool
	}{
		{"a free lock", nil, 1, true},
		{"a writer beside a writer", []int32{1}, 1, false},
		{"a reader beside a writer", []int32{1}, Shared, false},
		{"a writer beside a reader", []int32{Shared}, 1, false},
		{"a reader beside readers", []int32{Shared, Shared, Shared}, Shared, true},
		{"the third of three", []int32{3, 3}, 3, true},
		{"a fourth of three", []int32{3, 3, 3}, 3, false},
		{"one that allows fewer than there are", []int32{3, 3}, 2, false},
		{"one that allows more, beside the strictest", []int32{5, 2}, 5, false},
		{"a reader in a semaphore with room", []int32{3, 3}, Shared, true},
		{"a reader in a full semaphore", []int32{2, 2}, Shared, false},
		{"a semaphore among readers", []int32{Shared, Shared}, 3, true},
		{"a semaphore among too many readers", []int32{Shared, Shared, Shared}, 3, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			for _, limit := range tt.holders {
				r.take(t, Request{Dur: 10, Limit: limit})
			}
			want := Held
			if tt.fits {
				want = Granted
			}
			if got, _ := r.acquire(Request{Dur: 10, Limit: tt.asks}); got.Outcome != want {
				t.Fatalf("got %+v, want outcome %d", got, want)
			}
		})
	}
}

func TestTheStrictestHolderCountsUntilItLeaves(t *testing.T) {
	r := newRig(10)
	strict := r.take(t, Request{Dur: 10, Limit: 2})
	r.take(t, Request{Dur: 10, Limit: Shared})
	r.wait(t, Request{Owner: "x", Dur: 10, Limit: Shared})
	wantStep(t, r.release("", strict, false), Released, "ended by release /1 until 10", "granted x/3 until 10 to x")
	r.take(t, Request{Dur: 10, Limit: 4})
	if got, _ := r.acquire(Request{Dur: 10, Limit: Shared}); got.Outcome != Granted {
		t.Fatalf("got %+v", got)
	}
	if got, _ := r.acquire(Request{Dur: 10, Limit: Shared}); got.Outcome != Held {
		t.Fatalf("got %+v", got)
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	for _, name := range []string{bob, "cid", "", "eve"} {
		r.wait(t, Request{Owner: name, Dur: 10, Wait: 100})
	}
	r.now = 5
	wantStep(t, r.release(ann, 0, false), Released, "ended by release ann/1 until 10", "granted bob/2 until 15 to bob")
	wantStep(t, r.release("", 2, false), Released, "ended by release bob/2 until 15", "granted cid/3 until 15 to cid")
	wantStep(t, r.release("", 0, true), Released, "ended by force cid/3 until 15", "granted /4 until 15 to ")
	wantText(t, r.expire(15), "ended by expiry /4 until 15", "granted eve/5 until 25 to eve")
	wantText(t, r.expire(25), "ended by expiry eve/5 until 25")
	wantEmpty(t, r)
}

func TestWaitingWriterHoldsLaterReadersUp(t *testing.T) {
	r := newRig(10)
	first := r.take(t, Request{Owner: "r1", Dur: 100, Limit: Shared})
	r.wait(t, Request{Owner: "w", Dur: 100})
	if got, _ := r.acquire(Request{Owner: "r2", Dur: 100, Limit: Shared}); got.Outcome != Held {
		t.Fatalf("a reader was let past a writer: %+v", got)
	}
	r.wait(t, Request{Owner: "r2", Dur: 100, Limit: Shared})
	r.wait(t, Request{Owner: "r3", Dur: 100, Limit: Shared})
	wantStep(t, r.release("", first, false), Released, "ended by release r1/1 until 100", "granted w/2 until 100 to w")
	wantStep(t, r.release("w", 0, false), Released, "ended by release w/2 until 100", "granted r2/3 until 100 to r2", "granted r3/4 until 100 to r3")
}

// However the writer leaves the queue, the readers behind it need not wait for anything else.
func TestWriterThatLeavesTheQueueLetsReadersIn(t *testing.T) {
	leaves := map[string]func(r *rig, w *Waiter) []string{
		"it hangs up": func(r *rig, w *Waiter) []string {
			r.Cancel(5, w)
			if at, ok := r.Next(); !ok || at > 5 {
				t.Errorf("next is at %d, %t: the readers are not due", at, ok)
			}
			return r.expire(5)
		},
		"its wait times out": func(r *rig, w *Waiter) []string { return r.expire(20)[1:] },
		"its wait times out on a full disk": func(r *rig, w *Waiter) []string {
			r.TimeOut(20, func(_ Key, got *Waiter) {
				if got != w {
					t.Error("another waiter was refused")
				}
			})
			return r.expire(20)
		},
		"it hangs up, and another caller acts first": func(r *rig, w *Waiter) []string {
			r.now = 5
			r.Cancel(5, w)
			got, _ := r.acquire(Request{Owner: "r4", Dur: 100, Limit: Shared})
			return describe(got.Events[:2])
		},
	}
	for name, leave := range leaves {
		t.Run(name, func(t *testing.T) {
			r := newRig(10)
			r.take(t, Request{Owner: "r1", Dur: 100, Limit: Shared})
			w := r.wait(t, Request{Owner: "w", Dur: 100, Wait: 20})
			r.wait(t, Request{Owner: "r2", Dur: 100, Limit: Shared})
			r.wait(t, Request{Owner: "r3", Dur: 100, Limit: Shared})
			got := leave(r, w)
			end := r.now + 100
			wantText(t, got, fmt.Sprintf("granted r2/2 until %d to r2", end), fmt.Sprintf("granted r3/3 until %d to r3", end))
		})
	}
}

func TestRenewalGoesBeforeWaiters(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	r.wait(t, Request{Owner: bob, Dur: 10, Wait: 15})
	r.now = 9
	got, _ := r.acquire(Request{Owner: ann, Dur: 10, Wait: 100})
	wantStep(t, got, Renewed, "renewed ann/1 until 19")
	wantText(t, r.expire(18), "timed out to bob")
}

func TestWaitersOfOneIdAreGrantedTogether(t *testing.T) {
	r := newRig(2)
	r.take(t, Request{Owner: ann, Dur: 10})
	b1 := r.wait(t, Request{Owner: bob, Dur: 10, Wait: 100})
	c := r.wait(t, Request{Owner: "cid", Dur: 10, Wait: 100})
	b2 := r.wait(t, Request{Owner: bob, Dur: 30, Wait: 50, Least: 40}) // there is no third place, and it needs none
	if n := r.Waiters(door); n != 2 || r.limit.Waiting() != 2 {
		t.Fatalf("%d claims and %d places, want 2", n, r.limit.Waiting())
	}
	if got, _ := r.acquire(Request{Owner: bob, Dur: 10, Wait: 9, Limit: 3}); got.Outcome != WaitsOtherwise {
		t.Fatalf("another mode under an id that waits: %+v", got)
	}
	res := r.release(ann, 0, false)
	wantStep(t, res, Released, "ended by release ann/1 until 10", "granted bob/2 until 30 to bob to bob")
	if e := res.Events[1]; e.Waiters[0] != b1 || e.Waiters[1] != b2 || e.Holder.Least != 40 {
		t.Fatalf("got %+v", e)
	}
	if r.Cancel(0, b2) || !r.Cancel(0, c) {
		t.Fatal("bob still waits, or cid does not")
	}
}

func TestClaimKeepsItsPlaceForTheRetryThatIsLeft(t *testing.T) {
	r := newRig(10)
	r.take(t, Request{Owner: ann, Dur: 10})
	b1 := r.wait(t, Request{Owner: bob, Dur: 10})
	r.wait(t, Request{Owner: "cid", Dur: 10})
	r.now = 3
	r.wait(t, Request{Owner: bob, Dur: 10})
	r.Cancel(3, b1)
	if q := r.Queue(door, 1); len(q) != 1 || q[0] != (Waiting{bob, 3, 1}) {
		t.Fatalf("got %+v", q)
	}
	wantStep(t, r.release(ann, 0, false), Released, "ended by release ann/1 until 10", "granted bob/2 until 13 to bob")
}

func TestWhatIsDueFirstHappensFirst(t *testing.T) {
	tests := []struct {
		name     string
		deadline int64 // of bob, who waits for a hold that ends at 10
		now      int64
		want     []string
	}{
		{"the wait ends first", 9, 50, []string{"timed out to bob", "ended by expiry /1 until 10"}},
		{"both end at once", 10, 10, []string{"ended by expiry /1 until 10", "granted bob/2 until 15 to bob"}},
		{"the hold ends first", 11, 11, []string{"ended by expiry /1 until 10", "granted bob/2 until 16 to bob"}},
		{"the hold ends first, seen late", 11, 50, []string{"ended by expiry /1 until 10", "granted bob/2 until 55 to bob"}},
		{"nothing is due yet", 9, 8, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, swept := range []bool{true, false} {
				r := newRig(10)
				r.take(t, Request{Dur: 10})
				r.wait(t, Request{Owner: bob, Dur: 5, Wait: tt.deadline})
				if at, ok := r.Next(); !ok || at != min(10, tt.deadline) {
					t.Fatalf("next at %d, %t", at, ok)
				}
				if swept {
					wantText(t, r.expire(tt.now), tt.want...)
				} else {
					// Any step on the lock does it too.
					wantText(t, describe(r.Release(tt.now, door, "eve", 0, false).Events), tt.want...)
				}
			}
		})
	}
}
