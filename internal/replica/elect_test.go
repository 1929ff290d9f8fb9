package replica

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/boottime"
	"clouddragon/internal/disk"
)

// brokenDisk takes no writes.
type brokenDisk struct{ disk.OS }

func (brokenDisk) Create(string) (disk.File, error) { return nil, errors.New("the disk is broken") }

// emptyEtcd is an etcd without keys. It notes what it is asked.
type emptyEtcd struct {
	mu    sync.Mutex // guards asked
	asked []string   // paths
}

func (e *emptyEtcd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.asked = append(e.asked, r.URL.Path)
	e.mu.Unlock()
	// The client ends the connection if this cannot be sent, and the test fails.
	_, _ = w.Write([]byte(`{"succeeded": true, "ID": "7", "responses": [{"response_range": {}}, {"response_range": {}}]}`))
}

func newTestElector(t *testing.T, fsys disk.FS, dir string) (*Elector, *emptyEtcd) {
	etcd := &emptyEtcd{}
	s := httptest.NewServer(etcd)
	t.Cleanup(s.Close)
	return NewElector(ElectorOptions{
		Etcd: []string{s.URL}, Prefix: "x", Name: "a", Lease: 10 * time.Second, Log: quietly,
		State: func() (State, error) { return ReadState(fsys, dir) },
		Probe: func() error { return Probe(fsys, dir) },
	}), etcd
}

// It would take the other server out, and then end.
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
