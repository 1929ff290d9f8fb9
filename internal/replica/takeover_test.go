package replica

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
)

// take takes a lock of a database for an hour and returns its token.
func take(t *testing.T, d *db.DB, id string) int64 {
	t.Helper()
	op := &db.LockTake{LockRequest: db.LockRequest{Key: db.Key{Acc: "1", ID: id}, Owner: "a", Dur: time.Hour}}
	if err := d.Do(op); err != nil {
		t.Fatal(err)
	}
	return op.Holder.Token
}

// takeOver promotes the standby of a rig, stops the primary, and opens the database like the
// new primary.
func (r *rig) takeOver(stop func()) *db.DB {
	r.t.Helper()
	epoch, err := r.sb.Promote(false)
	if err != nil {
		r.t.Fatal(err)
	}
	stop()
	if s := r.state(); s.Epoch != epoch || !s.Primary || !s.Raise {
		r.t.Errorf("promoted, and on disk is %+v", s)
	}
	o := r.o
	o.Dir = r.dir
	for range 2 { // as if it was killed before it recorded that it is done
		state := r.state()
		if err := db.TakeOver(o, time.Minute); err != nil {
			r.t.Fatal(err)
		}
		if err := TakeOver(disk.OS{}, o, &state, time.Minute); err != nil || state.Raise || r.state().Raise {
			r.t.Fatalf("take over: %v, %+v", err, state)
		}
	}
	d, err := db.Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return d
}

// A new primary hands out tokens that are above all of the old one, which was itself a
// new primary once. Only its CHECKPOINT says how far its tokens were raised then.
func TestTokensAreAboveThoseOfEveryPrimaryBefore(t *testing.T) {
	r := newRig(t)
	r.mustAdd(3)
	r.stopPrimary()
	if err := db.TakeOver(r.o, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.startPrimary()
	before := take(t, r.d, "before")
	r.newStandby()
	stop := r.run()
	r.inSync()
	last := before
	for _, id := range []string{"x", "y"} {
		last = max(last, take(t, r.d, id))
	}
	d := r.takeOver(stop)
	if token := take(t, d, "after"); token <= last {
		t.Errorf("the new primary hands out token %d, the old one was at %d", token, last)
	}
	var left time.Duration
	op := &db.LockRead{Key: db.Key{Acc: "1", ID: "before"}}
	if err := d.Do(op); err != nil {
		t.Fatal(err)
	}
	for _, h := range op.Holders.Holders {
		left = h.TTL
	}
	if left <= time.Hour {
		t.Errorf("a lock of an hour is held for %v more, want a grace on top", left)
	}
}

func TestPrimaryNotesOnDiskWhatItWaitsFor(t *testing.T) {
	r := newRig(t)
	r.newStandby()
	r.run()
	r.inSync()
	state := func() State {
		s, err := ReadState(disk.OS{}, r.o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := state(); s.Standby != "b" || s.Epoch != 1 {
		t.Errorf("in sync, and on disk is %+v", s)
	}
	if epoch, err := r.p.GoAlone(); epoch != 2 || err != nil {
		t.Fatalf("go alone: epoch %d, %v", epoch, err)
	}
	if s := state(); s.Standby != "" || s.Epoch != 2 {
		t.Errorf("the primary goes on alone, and on disk is %+v", s)
	}
}

// At a start, the last batch in a primary's log may be one that was never answered and that
// its standby lacks.
func TestRestartedPrimaryAnswersNothingBeforeItsStandbyHasAll(t *testing.T) {
	r := newRig(t)
	r.mustAdd(3)
	r.newStandby()
	stop := r.run()
	r.inSync()
	stop()
	r.stopPrimary()
	r.startPrimary()
	for _, write := range []bool{false, true} {
		err := (*StandbyError)(nil)
		if got := r.p.Admit(write); !errors.As(got, &err) {
			t.Errorf("write %v: admitted (%v) without the standby", write, got)
		}
	}
	r.newStandby()
	r.run()
	r.inSync()
	for _, write := range []bool{false, true} {
		if err := r.p.Admit(write); err != nil {
			t.Errorf("write %v: %v, with the standby", write, err)
		}
	}
	r.mustAdd(3)
}

func TestStandbyThatMayLackWritesIsNotPromoted(t *testing.T) {
	r := followed(t)
	if _, err := r.sb.Promote(false); err == nil {
		t.Error("promoted, though the primary never waited for it")
	}
	if _, err := PromoteStopped(disk.OS{}, r.dir, false); err == nil {
		t.Error("promoted while it was stopped, though the primary never waited for it")
	}
	if epoch, err := r.sb.Promote(true); err != nil || epoch != 2 {
		t.Errorf("by force: epoch %d, %v", epoch, err)
	}
}

// The standby must not be promoted from then on, because the primary answers writes that it
// lacks.
func TestStandbyIsToldThatThePrimaryGoesOnAlone(t *testing.T) {
	r := newRig(t)
	r.newStandby()
	r.run()
	r.inSync()
	// Nothing but a beat may tell the standby.
	var beats sync.RWMutex // held by each beat on its way
	refuse := func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/replica/append" {
			w.WriteHeader(http.StatusInsufficientStorage)
			return true
		}
		beats.RLock()
		defer beats.RUnlock()
		r.sb.Handler().ServeHTTP(w, q)
		return true
	}
	r.onWay.Store(&refuse)
	if _, err := r.p.GoAlone(); err != nil {
		t.Fatal(err)
	}
	beats.Lock() // on a busy machine the primary may not wait until the standby has it on disk
	defer beats.Unlock()
	if s := r.state(); s.InSync || s.Epoch != 2 {
		t.Errorf("the primary goes on alone, and its standby has %+v on disk", s)
	}
}

// The standby is stopped while the primary is dead, before it is promoted. It stays in sync
// only if the primary cannot have received its leave: then the primary certainly answers no
// write without it.
func TestStandbyThatStopsStaysInSyncOnlyIfThePrimaryCannotKnow(t *testing.T) {
	for name, inSync := range map[string]bool{"there is no connection": true, "the answer is lost": false} {
		t.Run(name, func(t *testing.T) {
			r := followed(t)
			if code, line := r.beat(beatRequest{Epoch: 1, Answered: r.sb.f.End(), InSync: true}); code != http.StatusOK {
				t.Fatalf("beat: %d %s", code, line)
			}
			s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			defer s.Close()
			r.sb.call = newCaller(s.URL, always(""))
			if inSync {
				s.Close()
			}
			if err := r.sb.Leave(t.Context()); err == nil {
				t.Error("the standby has left a primary that is dead")
			}
			if got := r.state().InSync; got != inSync {
				t.Errorf("in sync on disk: %v, want %v", got, inSync)
			}
			if _, err := PromoteStopped(disk.OS{}, r.dir, false); (err == nil) != inSync {
				t.Errorf("promote: %v", err)
			}
		})
	}
}
