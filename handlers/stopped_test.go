package handlers

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"clouddragon/db"
	"clouddragon/internal/disk"
)

// brokenFS is a disk whose syncs fail on demand.
type brokenFS struct {
	disk.OS
	broken *atomic.Bool
}

func (b brokenFS) Open(name string) (disk.File, error) {
	f, err := b.OS.Open(name)
	return brokenFile{f, b.broken}, err
}

func (b brokenFS) Create(name string) (disk.File, error) {
	f, err := b.OS.Create(name)
	return brokenFile{f, b.broken}, err
}

type brokenFile struct {
	disk.File
	broken *atomic.Bool
}

func (b brokenFile) Sync() error {
	if b.broken.Load() {
		return errors.New("fdatasync /secret/path: input/output error")
	}
	return b.File.Sync()
}

func TestHealthSaysThatWritesAreStopped(t *testing.T) {
	fs := brokenFS{broken: new(atomic.Bool)}
	r := newRigOn(t, db.Options{FS: fs}, nil)
	r.want(200, "ok\n", "GET", "/healthz")
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	fs.broken.Store(true)
	for _, c := range []struct{ method, target, part string }{
		{"POST", "/db/1/sequence/a", "outcome is unknown"},
		{"POST", "/db/1/sequence/a", "writes are stopped"},
		{"DELETE", "/db/1/counter/a", "writes are stopped"},
		{"GET", "/healthz", "writes are stopped"},
	} {
		a := r.refused(503, c.part, c.method, c.target)
		if a.header.Get("Retry-After") != "1" || strings.Contains(a.body, "secret") {
			t.Errorf("%v: %v", c, a)
		}
	}
	r.want(200, "1\n", "GET", "/db/1/sequence/a")
	if a := r.do("HEAD", "/healthz"); a.status != 503 {
		t.Errorf("HEAD: %v", a)
	}
}

func TestHealthSaysThatTheServerShutsDown(t *testing.T) {
	draining := make(chan struct{})
	r := newRig(t, func(o *Options, _ *http.Server) { o.Draining = draining })
	r.want(200, "ok\n", "GET", "/healthz")
	close(draining)
	r.refused(503, "shutting down", "GET", "/healthz")
}

func TestAnswersOfAServerThatShutsDownEndTheirConnection(t *testing.T) {
	draining := make(chan struct{})
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Draining = draining
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	})
	ended := func(path string) bool {
		c := r.dial()
		if _, err := io.WriteString(c, request("GET", path, "")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.Close
	}
	for _, path := range []string{"/db/1/sequence/a", "/healthz", "/metrics"} {
		if ended(path) {
			t.Errorf("%s: the connection ends though the server does not shut down", path)
		}
	}
	close(draining)
	for _, path := range []string{"/db/1/sequence/a", "/healthz", "/metrics"} {
		if !ended(path) {
			t.Errorf("%s: the client is not told that the connection ends", path)
		}
	}
}
