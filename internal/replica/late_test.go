package replica

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/boottime"
	"clouddragon/internal/disk"
)

// hang makes the standby answer nothing until the test ends or calls the function that hang
// returns.
func (r *rig) hang() (goOn func()) {
	on := make(chan struct{})
	wait := func(_ http.ResponseWriter, q *http.Request) bool {
		select {
		case <-on:
		case <-q.Context().Done():
		}
		return false
	}
	r.onWay.Store(&wait)
	goOn = sync.OnceFunc(func() { close(on) })
	r.t.Cleanup(goOn)
	return goOn
}

// answeredSoon returns the answer to a call that must not hang.
func answeredSoon(t *testing.T, what string, call func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		t.Fatal("no answer:", what)
		return nil
	}
}

// No waiting call hangs because the standby hangs. A write in flight may turn out to be done;
// any other call is not done.
func TestWriteOnItsWayToAStandbyThatHangsIsAnswered(t *testing.T) {
	r := newRig(t)
	r.p.patience = 5 * time.Second // other writes have to be done in that time
	r.newStandby()
	r.run()
	r.inSync()
	take(t, r.d, "held")
	waits := make(chan error, 1)
	go func() {
		_, err := r.d.Lock(context.Background(), db.LockRequest{Key: db.Key{Acc: "1", ID: "held"}, Owner: "b", Dur: time.Hour, Wait: time.Hour})
		waits <- err
	}()
	until(t, "somebody waits for the lock", func() bool { return r.d.Stats().Locks.Waiting == 1 })
	goOn := r.hang()
	if err := answeredSoon(t, "a write on its way", func() error { return r.add("s") }); !errors.Is(err, db.ErrUnanswered) {
		t.Errorf("a write on its way: %v, want %v", err, db.ErrUnanswered)
	}
	away := (*StandbyError)(nil)
	if err := answeredSoon(t, "a call that waits for a lock", func() error { return <-waits }); !errors.As(err, &away) {
		t.Errorf("a call that waits for a lock: %v, want a *StandbyError", err)
	}
	if err := r.p.Admit(true); !errors.As(err, &away) {
		t.Errorf("the next write is admitted: %v", err)
	}
	if err := r.p.Admit(false); err != nil {
		t.Errorf("a read: %v", err)
	}
	// This write has passed the check earlier and reaches the writer now.
	if err := answeredSoon(t, "a write that comes too late", func() error { return r.add("s") }); !errors.As(err, &away) {
		t.Errorf("a write that comes too late: %v, want a *StandbyError", err)
	}
	goOn()
	r.inSync()
	until(t, "writes are admitted", func() bool { return r.p.Admit(true) == nil })
	if err := r.add("s"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.d.Sequence(db.Key{Acc: "1", ID: "s"}); n != 2 || err != nil {
		t.Errorf("the sequence is at %d (%v), want 2: the write on its way, and the last one", n, err)
	}
}

// When an operator gives up the standby, the write that waited for it is done.
func TestGoingAloneEndsTheWaitOfALateWrite(t *testing.T) {
	r := newRig(t)
	r.p.patience = 5 * time.Second // other writes have to be done in that time
	r.newStandby()
	r.run()
	r.inSync()
	r.hang()
	if err := answeredSoon(t, "a write on its way", func() error { return r.add("s") }); !errors.Is(err, db.ErrUnanswered) {
		t.Errorf("a write on its way: %v, want %v", err, db.ErrUnanswered)
	}
	if _, err := r.p.GoAlone(); err != nil {
		t.Fatal(err)
	}
	if err := answeredSoon(t, "a write", func() error { return r.add("s") }); err != nil {
		t.Errorf("a write without the standby: %v", err)
	}
	if n, err := r.d.Sequence(db.Key{Acc: "1", ID: "s"}); n != 2 || err != nil {
		t.Errorf("the sequence is at %d (%v), want 2", n, err)
	}
}

// With etcd a hanging standby is removed within two thirds of the lease. A batch is late only
// after the lease, so a write in flight is done. With this lease the standby, which hears nothing,
// joins again before the primary has given up a request.
func TestStandbyThatHangsIsTakenOutBeforeAWriteIsLate(t *testing.T) {
	e, _ := newTestElector(t, disk.OS{}, t.TempDir())
	etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // it has {}, and takes every change
		_, _ = w.Write([]byte(`{"succeeded": true, "responses": [{"response_range": {"kvs": [{"value": "e30="}]}}]}`))
	}))
	t.Cleanup(etcd.Close)
	e.etcd = newEtcd([]string{etcd.URL}, time.Second)
	e.o.Lease = 12 * time.Second
	e.leader, e.mine, e.until = Leader{Name: "a", Epoch: 1}, "a", boottime.Now()+time.Hour
	r := newElectedRig(t, e)
	r.newStandby()
	r.run()
	r.inSync()
	until(t, "etcd knows that the standby has every write", func() bool {
		r.p.mu.Lock()
		defer r.p.mu.Unlock()
		return r.p.added == "b"
	})
	r.p.mu.Lock()
	l := r.p.link
	r.p.mu.Unlock()
	if got := l.patience(); got > e.o.Lease/3 {
		t.Errorf("the standby may take %v to answer, want a third of the lease of %v at most", got, e.o.Lease)
	}
	r.hang()
	for _, what := range []string{"a write on its way", "the next write"} {
		if err := answeredSoon(t, what, func() error { return r.add("s") }); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := r.p.Status(); s.Sync {
		t.Errorf("writes still wait for the standby: %+v", s)
	}
}
