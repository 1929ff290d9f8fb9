package replica

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"clouddragon/db"
)

// churn overwrites a value until the primary has freed the segment that its log is in now,
// or for a while.
func (r *rig) churn() error {
	now := r.d.Log().Durable().Segment
	for i := 0; i < 300 && r.d.Log().Segments()[0] <= now; i++ {
		_, err := r.d.Set(db.SetRequest{Key: db.Key{Acc: "1", ID: "v"}, Data: make([]byte, 20<<10), Type: fmt.Sprint(i), Check: db.AnyVersion})
		if err != nil {
			return err
		}
	}
	return nil
}

// TestBusyPrimaryKeepsItsLogUntilItsStandbyHasJoined has the primary write several segments
// after the copy and again after the standby has opened it.
func TestBusyPrimaryKeepsItsLogUntilItsStandbyHasJoined(t *testing.T) {
	r := newRig(t)
	r.mustAdd(10)
	var copies atomic.Int64
	before := func(q *http.Request) {
		switch q.URL.Path {
		case "/backup":
			copies.Add(1)
		case "/replica/hello", "/replica/join":
			if err := r.churn(); err != nil {
				t.Error(err)
			}
		}
	}
	r.before.Store(&before)
	r.newStandby()
	stop := r.run()
	r.inSync()
	if n := copies.Load(); n != 1 {
		t.Errorf("the standby has fetched %d copies", n)
	}
	r.p.mu.Lock()
	k := r.p.kept
	r.p.mu.Unlock()
	if k != nil {
		t.Error("the log is still kept")
	}
	stop()
}

func TestLogIsKeptForTheOneStandbyOnly(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"b", "b", "c"} {
		if err := r.p.keep(name); err != nil {
			t.Fatal(err)
		}
		if r.p.kept == nil || r.p.kept.name != name {
			t.Fatalf("kept is %+v, want it for %s", r.p.kept, name)
		}
	}
	if err := r.churn(); err != nil {
		t.Fatal(err)
	}
	if first := r.d.Log().Segments()[0]; first != 1 {
		t.Errorf("the log is kept, and begins with segment %d", first)
	}
	r.p.release(r.p.kept)
	until(t, "the log is freed", func() bool {
		if err := r.churn(); err != nil {
			t.Fatal(err)
		}
		return r.d.Log().Segments()[0] > 1
	})
	r.p.Stop()
	if err := r.p.keep("b"); err == nil || r.p.kept != nil {
		t.Error("a server that stops keeps its log")
	}
}
