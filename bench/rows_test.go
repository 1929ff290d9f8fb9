package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen answers anything and remembers what it was asked, in the order in which
// the requests came, and how large the bodies were.
type seen struct {
	mu    sync.Mutex // guards what follows
	asked []string
	sizes map[int]bool
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // one that is cut off has another size
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.String())
	s.sizes[len(body)] = true
	s.mu.Unlock()
	emptyHandler(w, r)
}

func askedBy(t *testing.T, r *row, d time.Duration) *seen {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed")
	}
	s := &seen{sizes: map[int]bool{}}
	server := httptest.NewServer(s)
	defer server.Close()
	b := &bench{options: options{threads: 2}, dir: t.TempDir()}
	if _, err := b.wrk(context.Background(), server.Listener.Addr().String(), r.script(7), 8, d); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScriptsAskForIDsInRange(t *testing.T) {
	r := &row{method: "POST", acc: "a", api: "kv", ids: 3, value: 64}
	s := askedBy(t, r, 100*time.Millisecond)
	count := map[string]int{}
	for _, a := range s.asked {
		count[a]++
	}
	for id := 1; id <= r.ids; id++ {
		if count["POST "+r.path(id)] == 0 {
			t.Errorf("%s was never asked for", r.path(id))
		}
	}
	if len(count) != r.ids {
		t.Errorf("%d different requests, want %d: %v", len(count), r.ids, count)
	}
	if len(s.sizes) != 1 || !s.sizes[r.value] {
		t.Errorf("bodies of sizes %v, want %d bytes", s.sizes, r.value)
	}
}

func TestPairsUnlockOnlyWhatIsLocked(t *testing.T) {
	// Long enough for a slow machine to come to the unlocks.
	s := askedBy(t, &row{method: "POST", acc: "a", api: "lock", unlock: "DELETE lock"}, time.Second)
	locked := map[string]bool{}
	unlocks := 0
	for _, a := range s.asked {
		method, url, _ := strings.Cut(a, " ")
		path, query, _ := strings.Cut(url, "?")
		switch {
		case method == "POST" && query == "id=bench&dur=60" && !locked[path]:
			locked[path] = true
		case method == "DELETE" && query == "id=bench" && locked[path]:
			delete(locked, path)
			unlocks++
		default:
			t.Fatalf("%s: locked %v", a, locked[path])
		}
	}
	if unlocks == 0 {
		t.Errorf("no unlock among %d requests", len(s.asked))
	}
}

func TestRefusalsFailTheRun(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed")
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	b := &bench{options: options{threads: 1}, dir: t.TempDir()}
	_, err := b.wrk(context.Background(), server.Listener.Addr().String(), rows(1)[0].script(1), 1, 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "refusals") {
		t.Errorf("got %v, want an error about refusals", err)
	}
}
