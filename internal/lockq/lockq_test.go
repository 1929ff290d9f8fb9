package lockq

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// rig is a table with a clock and a token counter that the test owns.
type rig struct {
	*Table
	now   int64
	last  int64 // token
	limit *Limit
}

func newRig(limit int) *rig {
	r := &rig{limit: NewLimit(limit)}
	r.Table = New(func() int64 { r.last++; return r.last }, r.limit)
	return r
}

var door = Key{"acc", "door"}

func (r *rig) acquire(q Request) (Result, *Waiter) {
	w := &Waiter{Data: q.Owner}
	return r.Acquire(r.now, door, q, w), w
}

func (r *rig) release(owner string, token int64, force bool) Result {
	return r.Release(r.now, door, owner, token, force)
}

// expire brings the table to the instant now and returns what was due, as text.
func (r *rig) expire(now int64) (did []string) {
	r.now = now
	for {
		k, res, ok := r.Expire(now)
		if !ok {
			return did
		}
		did = append(did, describe(k, res))
	}
}

func describe(k Key, r Result) string {
	s := map[Outcome]string{Expired: "expired", TimedOut: "timed out", Released: "released"}[r.Outcome]
	if r.Waiter != nil {
		s += fmt.Sprintf(" %v", r.Waiter.Data)
	}
	if r.Outcome != TimedOut && r.Hold != (Hold{}) {
		s += fmt.Sprintf(" has %d until %d", r.Hold.Token, r.Hold.Expires)
	}
	return k.ID + " " + s
}

func wantResult(t *testing.T, got Result, o Outcome, h Hold) {
	t.Helper()
	if got.Outcome != o || got.Hold != h {
		t.Fatalf("got outcome %d with %+v, want outcome %d with %+v", got.Outcome, got.Hold, o, h)
	}
}

func wantEmpty(t rapid.TB, r *rig) {
	t.Helper()
	if len(r.locks) != 0 || len(r.schedule) != 0 || r.Stats().Held != 0 || r.Stats().Waiting != 0 || r.limit.Waiting() != 0 {
		t.Fatalf("left behind: %d locks, %d scheduled, %+v, %d counted as waiting", len(r.locks), len(r.schedule), r.Stats(), r.limit.Waiting())
	}
}

// Every case starts at 100 with one hold, until 110, of token 1.
func TestWhoMayAcquire(t *testing.T) {
	tests := []struct {
		name    string
		holder  string
		now     int64
		request Request
		outcome Outcome
		hold    Hold
	}{
		{"the same owner renews, same token", "ann", 103, Request{Owner: "ann", Dur: 20}, Renewed, Hold{"ann", 1, 123}},
		{"a renewal may shorten", "ann", 103, Request{Owner: "ann", Dur: 1}, Renewed, Hold{"ann", 1, 104}},
		{"the token renews", "ann", 103, Request{Token: 1, Dur: 20}, Renewed, Hold{"ann", 1, 123}},
		{"the token renews a hold without an owner", "", 103, Request{Token: 1, Dur: 20}, Renewed, Hold{"", 1, 123}},
		{"the token alone decides, and renames nobody", "ann", 103, Request{Owner: "bob", Token: 1, Dur: 20}, Renewed, Hold{"ann", 1, 123}},
		{"another token is refused", "ann", 103, Request{Token: 2, Dur: 20, Wait: 50}, NotHolder, Hold{"ann", 1, 110}},
		{"another token is refused though the owner matches", "ann", 103, Request{Owner: "ann", Token: 2, Dur: 20}, NotHolder, Hold{"ann", 1, 110}},
		{"a token that is over acquires nothing", "ann", 110, Request{Token: 1, Dur: 20, Wait: 50}, NotHolder, Hold{}},
		{"another owner is refused without a wait", "ann", 103, Request{Owner: "bob", Dur: 20}, Held, Hold{"ann", 1, 110}},
		{"nobody is refused without a wait", "", 103, Request{Dur: 20}, Held, Hold{"", 1, 110}},
		{"another owner queues", "ann", 103, Request{Owner: "bob", Dur: 20, Wait: 1}, Queued, Hold{"ann", 1, 110}},
		{"an instant before its end it is held", "ann", 109, Request{Owner: "bob", Dur: 20}, Held, Hold{"ann", 1, 110}},
		{"at its end it is free, swept or not", "ann", 110, Request{Owner: "bob", Dur: 20}, Granted, Hold{"bob", 2, 130}},
		{"after its end its owner gets a new token", "ann", 115, Request{Owner: "ann", Dur: 20}, Granted, Hold{"ann", 2, 135}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.now = 100
			first, _ := r.acquire(Request{Owner: tt.holder, Dur: 10})
			wantResult(t, first, Granted, Hold{tt.holder, 1, 110})
			r.now = tt.now
			got, _ := r.acquire(tt.request)
			wantResult(t, got, tt.outcome, tt.hold)
			h, _, _ := r.Holder(r.now, door)
			if h != tt.hold {
				t.Fatalf("the holder is %+v, want %+v", h, tt.hold)
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
		{"by its owner", "ann", 103, "ann", 0, false, Released},
		{"by its token", "ann", 103, "", 1, false, Released},
		{"by both", "ann", 103, "ann", 1, false, Released},
		{"by neither, though it has an owner", "ann", 103, "", 0, false, NotHolder},
		{"by neither, and it has none", "", 103, "", 0, false, Released},
		{"by its token, and it has no owner", "", 103, "", 1, false, Released},
		{"by an owner that it has not", "", 103, "ann", 0, false, NotHolder},
		{"by another owner", "ann", 103, "bob", 0, false, NotHolder},
		{"by another token", "ann", 103, "", 2, false, NotHolder},
		{"by another token, and it has no owner", "", 103, "", 2, false, NotHolder},
		{"by its owner with another token", "ann", 103, "ann", 2, false, NotHolder},
		{"by its token with another owner", "ann", 103, "bob", 1, false, NotHolder},
		{"by force", "ann", 103, "", 0, true, Released},
		{"by force with another owner and token", "ann", 103, "bob", 2, true, Released},
		{"when its time is over, swept or not", "ann", 110, "ann", 1, false, NotLocked},
		{"when its time is over, by another", "ann", 110, "bob", 2, false, NotLocked},
		{"when its time is over, by force", "ann", 110, "", 0, true, NotLocked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.now = 100
			r.acquire(Request{Owner: tt.holder, Dur: 10})
			r.now = tt.now
			hold := Hold{}
			if tt.want == NotHolder {
				hold = Hold{tt.holder, 1, 110}
			}
			wantResult(t, r.release(tt.owner, tt.token, tt.force), tt.want, hold)
			if tt.want == Released {
				wantEmpty(t, r)
				wantResult(t, r.release(tt.owner, tt.token, tt.force), NotLocked, Hold{})
			}
			r.expire(1000)
			wantEmpty(t, r)
		})
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	for _, name := range []string{"bob", "cid", "", "eve"} {
		got, _ := r.acquire(Request{Owner: name, Dur: 10, Wait: 100})
		wantResult(t, got, Queued, Hold{"ann", 1, 10})
	}
	if _, waiting, _ := r.Holder(0, door); waiting != 4 {
		t.Fatalf("%d wait, want 4", waiting)
	}
	r.now = 5
	got := []string{
		describe(door, r.release("ann", 0, false)),
		describe(door, r.release("", 2, false)),
		describe(door, r.release("", 0, true)),
	}
	got = append(got, r.expire(15)...)
	got = append(got, r.expire(25)...)
	want := []string{
		"door released bob has 2 until 15",
		"door released cid has 3 until 15",
		"door released  has 4 until 15",
		"door expired eve has 5 until 25",
		"door expired",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	wantEmpty(t, r)
}

func TestRenewalGoesBeforeWaiters(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 15})
	r.now = 9
	got, _ := r.acquire(Request{Owner: "ann", Dur: 10, Wait: 100})
	wantResult(t, got, Renewed, Hold{"ann", 1, 19})
	if did := r.expire(18); !slices.Equal(did, []string{"door timed out bob"}) {
		t.Fatalf("got %q", did)
	}
}

func TestTheOwnersSecondWaiterIsNoRenewal(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 100})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 100})
	wantResult(t, r.release("ann", 0, false), Released, Hold{"bob", 2, 10})
	wantResult(t, r.release("bob", 0, false), Released, Hold{"bob", 3, 10})
}

func TestWhatIsDueFirstHappensFirst(t *testing.T) {
	tests := []struct {
		name     string
		deadline int64 // of bob, who waits for a hold that ends at 10
		now      int64
		want     []string
	}{
		{"the wait ends first", 9, 50, []string{"door timed out bob", "door expired"}},
		{"both end at once", 10, 10, []string{"door expired bob has 2 until 15"}},
		{"the hold ends first", 11, 11, []string{"door expired bob has 2 until 16"}},
		{"the hold ends first, seen late", 11, 50, []string{"door expired bob has 2 until 55"}},
		{"nothing is due yet", 9, 8, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(10)
			r.acquire(Request{Owner: "ann", Dur: 10})
			r.acquire(Request{Owner: "bob", Dur: 5, Wait: tt.deadline})
			if at, ok := r.Next(); !ok || at != min(10, tt.deadline) {
				t.Fatalf("next at %d, %t", at, ok)
			}
			if got := r.expire(tt.now); !slices.Equal(got, tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHoldThatIsOverBelongsToTheNextInLine(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 12})
	r.now = 20
	if h, _, ok := r.Holder(20, door); ok {
		t.Fatalf("held by %+v", h)
	}
	got, _ := r.acquire(Request{Owner: "eve", Dur: 10})
	wantResult(t, got, Held, Hold{})
	got, _ = r.acquire(Request{Owner: "ann", Dur: 10, Wait: 10})
	wantResult(t, got, Queued, Hold{})
	wantResult(t, r.release("", 0, true), NotLocked, Hold{})
	if did := r.expire(20); !slices.Equal(did, []string{"door expired bob has 2 until 30"}) {
		t.Fatalf("got %q", did)
	}
}

func TestWaiterWhoseTimeIsOverIsSkipped(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 100})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 5})
	r.acquire(Request{Owner: "cid", Dur: 10, Wait: 50})
	r.now = 6
	wantResult(t, r.release("ann", 0, false), Released, Hold{"cid", 2, 16})
	if got := r.release("cid", 0, false); got.Outcome != Released || got.Waiter != nil {
		t.Fatalf("got %+v", got)
	}
	if _, ok := r.locks[door]; !ok {
		t.Fatal("bob, who is yet to be refused, was dropped")
	}
	got, _ := r.acquire(Request{Owner: "eve", Dur: 10})
	wantResult(t, got, Granted, Hold{"eve", 3, 16})
	r.release("eve", 0, false)
	if did := r.expire(6); !slices.Equal(did, []string{"door timed out bob"}) {
		t.Fatalf("got %q", did)
	}
	wantEmpty(t, r)
}

func TestCancelLeavesTheQueue(t *testing.T) {
	for gone := range 3 {
		t.Run(fmt.Sprint(gone), func(t *testing.T) {
			r := newRig(10)
			r.acquire(Request{Owner: "ann", Dur: 10})
			var ws []*Waiter
			var want []string
			for i := range 3 {
				_, w := r.acquire(Request{Owner: fmt.Sprint("w", i), Dur: 10, Wait: 100})
				ws = append(ws, w)
				if i != gone {
					want = append(want, fmt.Sprint("w", i))
				}
			}
			if !r.Cancel(ws[gone]) || r.Cancel(ws[gone]) {
				t.Fatal("a waiter must leave its queue once")
			}
			var got []string
			for res := r.release("", 0, true); res.Waiter != nil; res = r.release("", 0, true) {
				got = append(got, res.Hold.Owner)
				if r.Cancel(res.Waiter) {
					t.Fatal("a waiter that has been granted left its queue")
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("granted to %q, want %q", got, want)
			}
			wantEmpty(t, r)
		})
	}
}

func TestGrantThatNobodyHeardOfGoesToTheNext(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 100})
	r.acquire(Request{Owner: "cid", Dur: 10, Wait: 100})
	r.release("ann", 0, false)
	wantResult(t, r.GiveBack(0, door, 1), NotHolder, Hold{"bob", 2, 10})
	wantResult(t, r.GiveBack(0, door, 2), Released, Hold{"cid", 3, 10})
	wantResult(t, r.GiveBack(10, door, 3), NotLocked, Hold{})
	wantResult(t, r.GiveBack(9, door, 3), Released, Hold{})
	wantEmpty(t, r)
}

// A client that lost its connection while it waited asks again, and is told that it holds the lock, before the server
// sees that the first request is gone.
func TestGrantThatWasRenewedIsNotGivenBack(t *testing.T) {
	r := newRig(10)
	r.acquire(Request{Owner: "ann", Dur: 10})
	r.acquire(Request{Owner: "bob", Dur: 10, Wait: 100})
	r.acquire(Request{Owner: "cid", Dur: 10, Wait: 100})
	r.release("ann", 0, false)
	again, _ := r.acquire(Request{Owner: "bob", Dur: 10, Wait: 100})
	wantResult(t, again, Renewed, Hold{"bob", 2, 10})
	wantResult(t, r.GiveBack(0, door, 2), NotHolder, Hold{"bob", 2, 10})
	wantResult(t, r.release("bob", 0, false), Released, Hold{"cid", 3, 10})
	wantResult(t, r.GiveBack(0, door, 3), Released, Hold{}) // the next hold starts anew
}

func TestLimitIsSharedOverTables(t *testing.T) {
	limit := NewLimit(2)
	token := func() int64 { return 1 }
	a, b := New(token, limit), New(token, limit)
	var ws [4]Waiter
	a.Acquire(0, door, Request{Dur: 10}, &ws[0])
	b.Acquire(0, door, Request{Dur: 10}, &ws[0])
	q := Request{Dur: 10, Wait: 10}
	got := []Outcome{
		a.Acquire(0, door, q, &ws[0]).Outcome,
		b.Acquire(0, door, q, &ws[1]).Outcome,
		a.Acquire(0, door, q, &ws[2]).Outcome,
		b.Acquire(0, door, q, &ws[2]).Outcome,
	}
	a.Cancel(&ws[0])
	got = append(got, b.Acquire(0, door, q, &ws[2]).Outcome, a.Acquire(0, door, q, &ws[3]).Outcome)
	if want := []Outcome{Queued, Queued, Crowded, Crowded, Queued, Crowded}; !slices.Equal(got, want) {
		t.Fatalf("got outcomes %d, want %d", got, want)
	}
	b.Release(0, door, "", 0, false)
	if limit.Waiting() != 1 {
		t.Fatalf("%d counted as waiting after a grant, want 1", limit.Waiting())
	}
}

func TestDrainRefusesEveryWaiterAndKeepsHolds(t *testing.T) {
	r := newRig(100)
	for i := range 5 {
		k := Key{"acc", fmt.Sprint(i)}
		for range 4 {
			r.Acquire(0, k, Request{Dur: 10, Wait: 10}, &Waiter{Data: k})
		}
	}
	refused := map[Key]int{}
	r.Drain(func(k Key, w *Waiter) {
		if w.Data != k || r.Cancel(w) {
			t.Errorf("waiter for %v was refused in the queue of %v", w.Data, k)
		}
		refused[k]++
	})
	for i := range 5 {
		if n := refused[Key{"acc", fmt.Sprint(i)}]; n != 3 {
			t.Errorf("%d waiters of lock %d refused, want 3", n, i)
		}
	}
	if s := r.Stats(); s.Held != 5 || s.Waiting != 0 || r.limit.Waiting() != 0 {
		t.Fatalf("got %+v, want 5 held", s)
	}
	r.expire(10)
	wantEmpty(t, r)
}

func TestRestoredHoldIsAHold(t *testing.T) {
	r := newRig(10)
	r.last = 42
	r.Restore(door, Hold{"ann", 42, 10})
	got, _ := r.acquire(Request{Owner: "bob", Dur: 5, Wait: 20})
	wantResult(t, got, Queued, Hold{"ann", 42, 10})
	if did := r.expire(10); !slices.Equal(did, []string{"door expired bob has 43 until 15"}) {
		t.Fatalf("got %q", did)
	}
	if s := r.Stats(); s.Expired != 1 || s.Held != 1 {
		t.Fatalf("got %+v", s)
	}
}

func TestTimeOutAnswersWaitersAndLeavesHoldsThatAreOver(t *testing.T) {
	limit := NewLimit(100)
	table := New(func() int64 { return 1 }, limit)
	a, b := Key{"1", "a"}, Key{"1", "b"}
	table.Acquire(0, a, Request{Dur: 10}, nil)
	table.Acquire(0, b, Request{Dur: 1000}, nil)
	var waiters [40]Waiter
	for i := range waiters {
		k := a
		if i%2 == 1 {
			k = b
		}
		table.Acquire(0, k, Request{Dur: 10, Wait: int64(20 + i)}, &waiters[i])
	}
	refused := map[*Waiter]Key{}
	table.TimeOut(40, func(k Key, w *Waiter) { refused[w] = k })
	for i := range waiters {
		k, gone := refused[&waiters[i]]
		if want := 20+i <= 40; gone != want || gone && (k == b) != (i%2 == 1) {
			t.Errorf("waiter %d until %d: refused %t for %v", i, 20+i, gone, k)
		}
	}
	if limit.Waiting() != len(waiters)-len(refused) || table.Stats().Waiting != limit.Waiting() {
		t.Errorf("%d wait, the table says %d", limit.Waiting(), table.Stats().Waiting)
	}
	// The hold that is over goes to the first who still waits.
	if k, r, ok := table.Expire(40); !ok || k != a || r.Outcome != Expired || r.Waiter != &waiters[22] {
		t.Errorf("%v %+v %t", k, r, ok)
	}
}
