package replica

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/boottime"
	"clouddragon/internal/disk"
)

// brokenDisk is a disk that takes no writes.
type brokenDisk struct{ disk.OS }

func (brokenDisk) Create(string) (disk.File, error) { return nil, errors.New("the disk is broken") }

// fakeEtcd is an etcd that has at most the configuration. It records its requests.
type fakeEtcd struct {
	mu     sync.Mutex // guards what follows
	config string     // the value of the key config; empty: there is none
	asked  []string   // paths
	put    []string   // values of the key config
}

func (e *fakeEtcd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, r.URL.Path)
	type key struct{ Key, Value []byte }
	var q struct {
		Compare []struct{ Key, Value []byte }
		Success []struct {
			Range key `json:"request_range"`
			Put   key `json:"request_put"`
		}
	}
	// The client ends the connection if this cannot be read or answered, and the test fails.
	_ = json.NewDecoder(r.Body).Decode(&q)
	for _, c := range q.Compare {
		if strings.HasSuffix(string(c.Key), "/config") && c.Value != nil && string(c.Value) != e.config {
			_ = json.NewEncoder(w).Encode(map[string]any{"succeeded": false})
			return
		}
	}
	answers := []any{}
	for _, op := range q.Success {
		keys := []any{}
		if strings.HasSuffix(string(op.Range.Key), "/config") && e.config != "" {
			keys = append(keys, map[string]any{"value": []byte(e.config), "mod_revision": "1"})
		}
		if strings.HasSuffix(string(op.Put.Key), "/config") {
			e.config = string(op.Put.Value)
			e.put = append(e.put, e.config)
		}
		answers = append(answers, map[string]any{"response_range": map[string]any{"kvs": keys}})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"succeeded": true, "ID": "7", "responses": answers})
}

func newTestElector(t *testing.T, fsys disk.FS, dir string) (*Elector, *fakeEtcd) {
	etcd := &fakeEtcd{}
	s := httptest.NewServer(etcd)
	t.Cleanup(s.Close)
	return NewElector(ElectorOptions{
		Etcd: []string{s.URL}, Prefix: "x", Name: "a", Lease: 10 * time.Second, Log: quietly,
		State: func() (State, error) { return ReadState(fsys, dir) },
		Fit:   func(isNew bool) error { return Fit(fsys, dir, isNew) },
	}), etcd
}

// Once elected, it would remove the other server in etcd and then exit.
func TestServerWithABrokenDiskIsNotElected(t *testing.T) {
	e, etcd := newTestElector(t, brokenDisk{}, t.TempDir())
	if err := e.step(t.Context()); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a step of the election: %v, want that the disk is broken", err)
	}
	if _, mine, _ := e.Primary(); mine || len(etcd.asked) != 1 {
		t.Errorf("elected: %v, after %v", mine, etcd.asked)
	}
	e, _ = newTestElector(t, disk.OS{}, t.TempDir())
	if err := e.step(t.Context()); err != nil {
		t.Error(err)
	}
	if _, mine, _ := e.Primary(); !mine {
		t.Error("not elected, with a disk that works")
	}
}

// A primary whose disk has failed ends its link to the standby, which is then the only
// one that can go on.
func TestPrimaryWithABrokenDiskKeepsItsStandbyInEtcd(t *testing.T) {
	p := bare(t, at(7, 7))
	p.fs = brokenDisk{}
	e, etcd := newTestElector(t, p.fs, p.dir)
	p.e = e
	e.leader, e.mine, e.until = Leader{Name: "a", Epoch: 3}, "a", boottime.Now()+time.Hour
	if err := p.arbitrateOnce(); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("the standby is away: %v, want that the disk is broken", err)
	}
	if len(etcd.asked) > 0 {
		t.Errorf("etcd was asked %v", etcd.asked)
	}
}

// A standby whose data is gone, or that is about to fetch a new copy, may still be named in
// etcd as one that has every write.
func TestServerWithoutTheWholeDataIsNotElected(t *testing.T) {
	dir := t.TempDir()
	e, etcd := newTestElector(t, disk.OS{}, dir)
	etcd.config = `{"Epoch": 3, "InSync": ["a", "b"]}`
	refused := func(why string) {
		t.Helper()
		if err := e.step(t.Context()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("a step of the election: %v, want %q", err, why)
		}
		if _, mine, _ := e.Primary(); mine {
			t.Errorf("elected, although %s", why)
		}
	}
	refused("has none")
	if err := os.WriteFile(filepath.Join(dir, "CHECKPOINT"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Standby{o: StandbyOptions{FS: disk.OS{}, Open: db.Options{Dir: dir}}, state: State{Epoch: 3}}
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	refused("not complete")
	s.state.Partial = false
	if err := s.setState(s.state); err != nil {
		t.Fatal(err)
	}
	if err := e.step(t.Context()); err != nil {
		t.Error(err)
	}
	if _, mine, _ := e.Primary(); !mine {
		t.Error("not elected with the whole data")
	}
}

// Without that line the log of a server that waits for another one says nothing.
func TestServerSaysWhyItIsNotElected(t *testing.T) {
	var log strings.Builder
	e, etcd := newTestElector(t, disk.OS{}, t.TempDir())
	e.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	etcd.config = `{"Epoch":5,"InSync":["b"]}`
	for range 2 {
		err := e.step(t.Context())
		if !errors.As(err, new(*unfitError)) {
			t.Errorf("a server that etcd does not name: %v", err)
		}
		e.note(err)
	}
	if e.isMine() || len(etcd.put) > 0 {
		t.Error("it was elected")
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "etcd names only b ") {
		t.Errorf("the log says %q, want one line with the server that has every write", got)
	}
}

// etcd decides. A server with a later epoch, which did not come from etcd, would otherwise end the
// primary again and again.
func TestPrimaryWithALeaseIsNotReplacedByAStandby(t *testing.T) {
	for what, replace := range map[string]func(*Primary) error{
		"hello": func(p *Primary) error { _, err := p.hello(helloRequest{Name: "b", Epoch: 9}); return err },
		"join":  func(p *Primary) error { return p.joinEpoch(joinRequest{Name: "b", URL: "x", Secret: "x", Epoch: 9}) },
		"fence": func(p *Primary) error { return p.Fence(9, "http://b") },
	} {
		p := bare(t, at(7, 7))
		e, _ := newTestElector(t, p.fs, p.dir)
		p.e = e
		e.leader, e.mine, e.until = Leader{Name: "a", Epoch: 3}, "a", boottime.Now()+time.Hour
		if err := replace(p); err == nil || !strings.Contains(err.Error(), "etcd says") || p.Replaced() {
			t.Errorf("%s of a later epoch: %v, replaced: %v", what, err, p.Replaced())
		}
		e.until = 0 // the lease has run out
		if err := replace(p); !p.Replaced() {
			t.Errorf("%s of a later epoch, without a lease: %v, not replaced", what, err)
		}
	}
}

func TestStoppedServerOfAClusterIsNotPromoted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "CHECKPOINT"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sb, err := NewStandby(StandbyOptions{FS: disk.OS{}, Of: "http://a", Elected: true, Open: db.Options{Dir: dir}, Log: quietly})
	if err != nil {
		t.Fatal(err)
	}
	sb.state.InSync = true
	if err := sb.setState(sb.state); err != nil {
		t.Fatal(err)
	}
	if _, err := PromoteStopped(disk.OS{}, dir, false); !IsRefused(err) || !strings.Contains(err.Error(), "etcd decides") {
		t.Errorf("a stopped standby of a cluster: %v, want that etcd decides", err)
	}
	// It has left the cluster.
	if epoch, err := PromoteStopped(disk.OS{}, dir, true); err != nil || epoch != 2 {
		t.Errorf("by force: epoch %d, %v", epoch, err)
	}
}
