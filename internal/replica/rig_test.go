package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

const patience = 60 * time.Second

// rig is a primary and its standby in one process. A test can interfere with the link between
// them.
type rig struct {
	t        *testing.T
	e        *Elector   // of the primary; nil: there is no etcd
	o        db.Options // of the primary
	atP, atS *httptest.Server
	dir      string // of the standby

	// The test changes these. A handler may still serve a request that nobody waits for.
	mu sync.Mutex // guards what follows in handlers, and held by the test while it changes it
	p  *Primary
	d  *db.DB
	sb *Standby
	// stopPrimary stops the primary, once.
	stopPrimary func()
	// before, if not nil, is called with each request to the primary before it is served.
	before atomic.Pointer[func(*http.Request)]
	// onWay, if not nil, answers a request to the standby, or returns false.
	onWay atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

var quietly = slog.New(slog.DiscardHandler)

func newRig(t *testing.T) *rig { return newElectedRig(t, nil) }

// newElectedRig is newRig with an Elector of the primary.
func newElectedRig(t *testing.T, e *Elector) *rig {
	r := &rig{t: t, e: e, dir: filepath.Join(t.TempDir(), "standby")}
	r.o = db.Options{Dir: filepath.Join(t.TempDir(), "primary"), Segment: 64 << 10, CheckpointEvery: 100 << 10, CompactRatio: 1.2, Extent: 8192, QuietAfter: time.Hour, Log: quietly}
	r.startPrimary()
	r.atP = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if fn := r.before.Load(); fn != nil {
			(*fn)(q)
		}
		r.mu.Lock()
		p, d := r.p, r.d
		r.mu.Unlock()
		if q.URL.Path == "/backup" {
			if _, err := d.Backup(q.Context(), w, "test"); err != nil {
				t.Errorf("backup: %v", err)
			}
			return
		}
		p.Handler().ServeHTTP(w, q)
	}))
	t.Cleanup(r.atP.Close)
	r.atS = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if fn := r.onWay.Load(); fn != nil && (*fn)(w, q) {
			return
		}
		r.mu.Lock()
		sb := r.sb
		r.mu.Unlock()
		sb.Handler().ServeHTTP(w, q)
	}))
	t.Cleanup(r.atS.Close)
	return r
}

func (r *rig) startPrimary() {
	r.t.Helper()
	p, err := NewPrimary(disk.OS{}, r.o.Dir, r.e, quietly)
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.o
	o.Mirror = p
	d, err := db.Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	p.Serve(d)
	r.mu.Lock()
	r.p, r.d = p, d
	r.mu.Unlock()
	r.stopPrimary = sync.OnceFunc(func() {
		p.Stop()
		if err := d.Close(); err != nil && p.err == nil {
			r.t.Error(err)
		}
		p.Close()
	})
	r.t.Cleanup(r.stopPrimary)
}

// newStandby makes the standby, without running it.
func (r *rig) newStandby() {
	r.t.Helper()
	o := r.o
	o.Dir = r.dir
	sb, err := NewStandby(StandbyOptions{FS: disk.OS{}, Of: r.atP.URL, Token: always(""), Sync: true, URL: r.atS.URL, Name: "b", Open: o, Log: quietly})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.sb = sb
	r.mu.Unlock()
}

// run runs the standby and returns what ends it.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	sb := r.sb
	go func() { ended <- sb.Run(ctx) }()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(stop)
	return stop
}

// add commits a batch of the primary and returns its answer.
func (r *rig) add(name string) error {
	return r.d.Do(&db.SequenceAdd{Key: db.Key{Acc: "1", ID: name}, N: 1})
}

func (r *rig) mustAdd(n int) {
	r.t.Helper()
	for i := range n {
		if err := r.add(fmt.Sprint("s", i%7)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// until polls for a condition that has no channel.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

func (r *rig) inSync() {
	r.t.Helper()
	until(r.t, "the standby is in sync", func() bool { return r.p.Status().InSync && r.sb.Status().InSync })
}

// post sends a message of the primary to the standby, and returns the status and the line of
// the answer.
func (r *rig) post(path string, body io.Reader) (int, string) {
	r.t.Helper()
	q, err := http.NewRequest("POST", r.atS.URL+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.sb.secret)
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, b.String()
}

// state reads what the standby has on disk.
func (r *rig) state() State {
	r.t.Helper()
	s, err := ReadState(disk.OS{}, r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// bare returns a primary without a database that is in sync with a standby "b", which has the
// log up to a position.
func bare(t *testing.T, acked wal.Pos) *Primary {
	dir := t.TempDir()
	if err := (State{Epoch: 3, Primary: true, Standby: "b"}).write(disk.OS{}, dir); err != nil {
		t.Fatal(err)
	}
	p, err := NewPrimary(disk.OS{}, dir, nil, quietly)
	if err != nil {
		t.Fatal(err)
	}
	p.acked = acked
	p.Stop() // a write that would wait for the standby ends with ErrClosed
	t.Cleanup(p.Close)
	return p
}

func at(seq uint64, sum uint32) wal.Pos {
	return wal.Pos{Segment: 1, Offset: 4096 + int64(seq), Seq: seq, Sum: sum}
}
