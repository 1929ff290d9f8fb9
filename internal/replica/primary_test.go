package replica

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/kvlog/wal"
)

func TestWriteIsNotAnsweredWithoutItsStandby(t *testing.T) {
	for _, x := range []struct {
		name  string
		acked wal.Pos
		end   wal.Pos
		want  error
	}{
		{"it has the batch", at(6, 1), at(6, 1), nil},
		{"it lacks the batch", at(5, 1), at(6, 1), ErrClosed},
		{"it is not known what it has", wal.Pos{}, at(6, 1), ErrClosed},
		{"it has another batch in that place", at(6, 2), at(6, 1), ErrClosed},
		{"it has another segment's end there", at(7, 2), at(6, 1), ErrClosed},
	} {
		p := bare(t, x.acked)
		p.Begin(wal.Frame{From: at(5, 1)})
		if err := p.End(x.end); err != x.want {
			t.Errorf("%s: the write ends with %v, want %v", x.name, err, x.want)
		}
	}
}

// A batch that found the disk full is not in the log, although the standby has it. The next
// batch takes its place.
func TestCancelledBatchCountsForNothing(t *testing.T) {
	p := bare(t, at(5, 1))
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{p: p, name: "b", ctx: ctx, cancel: cancel, caught: true}
	p.link = l
	p.Begin(wal.Frame{From: at(5, 1)})
	p.acked = at(6, 9) // the standby has answered
	p.Cancel()
	if ctx.Err() == nil {
		t.Error("the link goes on: the standby would not give up the batch")
	}
	p.link = nil
	p.Begin(wal.Frame{From: at(5, 1)})
	if err := p.End(at(6, 9)); err != ErrClosed {
		t.Errorf("the next batch in its place is answered (%v), though the standby lacks it", err)
	}
}

// A standby that asks where the logs agree may cut what it has, which then no longer
// counts for the batch that the primary is writing.
func TestStandbyThatAsksAnewHasNothingYet(t *testing.T) {
	r := newRig(t)
	r.mustAdd(3)
	end := r.d.Log().Durable()
	r.p.mu.Lock()
	r.p.state.Standby = "b"
	next := end
	next.Seq, next.Offset = next.Seq+1, next.Offset+64
	r.p.acked = next // of a batch that is not durable here yet
	r.p.mu.Unlock()
	id := r.d.Log().ID()
	h, err := r.p.hello(helloRequest{Name: "b", ID: hex.EncodeToString(id[:]), Ends: []wal.Pos{next, end}, Epoch: 1})
	if err != nil || h.At != end {
		t.Fatalf("hello: %+v, %v; want %+v", h, err, end)
	}
	r.p.Stop()
	r.p.Begin(wal.Frame{From: end})
	if err := r.p.End(next); err != ErrClosed {
		t.Errorf("the batch that the standby cuts is answered: %v", err)
	}
}

// A link that was ended changes nothing any more: the standby has left, or the primary was
// told to go on alone.
func TestEndedLinkNotesNothing(t *testing.T) {
	r := newRig(t)
	r.mustAdd(3)
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{p: r.p, name: "b", sync: true, live: true, noted: true, ctx: ctx, cancel: cancel}
	r.p.mu.Lock()
	r.p.link = l
	r.p.mu.Unlock()
	if err := r.p.leave("b"); err != nil {
		t.Fatal(err)
	}
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if l.catch(r.d.Log().Durable()); r.p.state.Standby != "" {
		t.Error("the primary waits for a standby that has left")
	}
	r.p.link = nil
}

func TestSecondStandbyIsRefused(t *testing.T) {
	r := newRig(t)
	r.newStandby()
	stop := r.run()
	r.inSync()
	err := r.p.joinEpoch(joinRequest{Name: "c", URL: r.atS.URL, Secret: "x", At: r.d.Log().Durable(), Epoch: 1})
	if err == nil || !strings.Contains(err.Error(), "has a standby, b") {
		t.Errorf("a second standby: %v, want a refusal that names the first", err)
	}
	if err := r.sb.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	until(t, "the link has ended", func() bool { r.p.mu.Lock(); defer r.p.mu.Unlock(); return r.p.link == nil })
	if err := r.p.joinEpoch(joinRequest{Name: "c", URL: r.atS.URL, Secret: "x", At: r.d.Log().Durable(), Epoch: 1}); err != nil {
		t.Errorf("a standby after the first has left: %v", err)
	}
}

// A standby whose disk is full still answers beats. It must not look alive because of that:
// the primary would keep its log for it for ever.
func TestStandbyThatTakesNoBatchIsNotAlive(t *testing.T) {
	r := newRig(t)
	r.p.patience = patience // the write waits however long the machine takes
	r.newStandby()
	r.run()
	r.inSync()
	var failed, beats, alive atomic.Int32
	done := make(chan struct{})
	seen := sync.OnceFunc(func() { close(done) })
	refuse := func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/replica/beat" && failed.Load() > 0 {
			beats.Add(1)
		}
		if q.URL.Path != "/replica/append" {
			return false
		}
		if failed.Load() > 0 && r.p.Status().Live {
			alive.Add(1)
		}
		failed.Add(1)
		if beats.Load() >= 2 {
			seen()
		}
		w.WriteHeader(http.StatusInsufficientStorage)
		return true
	}
	r.onWay.Store(&refuse)
	added := make(chan error, 1)
	go func() { added <- r.add("s") }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the batch is not sent again")
	}
	r.onWay.Store(nil)
	if err := <-added; err != nil {
		t.Errorf("the write that waited: %v", err)
	}
	if n := alive.Load(); n > 0 {
		t.Errorf("the standby looked alive %d times while it took no batch", n)
	}
}

// A primary that learns of a later epoch stops being the primary, and does not offer its data
// to the server that told it.
func TestLaterEpochOfAStandbyEndsThePrimary(t *testing.T) {
	r := newRig(t)
	id := r.d.Log().ID()
	_, err := r.p.hello(helloRequest{Name: "b", ID: hex.EncodeToString(id[:]), Epoch: 2})
	if !errors.Is(err, ErrOver) {
		t.Errorf("hello of a later epoch: %v, want %v", err, ErrOver)
	}
	if err := r.p.joinEpoch(joinRequest{Name: "b", URL: "x", Secret: "x", Epoch: 3}); !errors.Is(err, ErrOver) {
		t.Errorf("join of a later epoch: %v, want %v", err, ErrOver)
	}
	if !r.p.Replaced() || r.p.epoch() != 3 {
		t.Errorf("the primary goes on in epoch %d", r.p.epoch())
	}
}

// Two servers that were promoted at the same time have the same epoch. Neither is told that
// the other one has given way.
func TestTwoPrimariesOfAnEpochAreNotHushedUp(t *testing.T) {
	p := bare(t, wal.Pos{})
	if err := p.Fence(3, "http://other"); err == nil || p.Replaced() {
		t.Errorf("a primary of epoch 3 gave way to another one of epoch 3: %v", err)
	}
	for range 2 { // the answer to the first may have been lost
		if err := p.Fence(4, "http://other"); err != nil || !p.Replaced() {
			t.Errorf("epoch 4: %v", err)
		}
	}
}
