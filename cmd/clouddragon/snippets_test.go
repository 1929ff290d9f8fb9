package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// snippets are the clients of docs/recipes.md.
var snippets = []struct {
	language, program, file string
	args                    []string
	comment                 string // the beginning of its first line
	lost                    string // what it prints after a lost race
}{
	{"python", "python3", "call.py", nil, "#", "None"},
	{"js", "node", "call.mjs", nil, "//", "null"},
	{"go", "go", "call.go", []string{"run"}, "//", "lost"},
}

// flaky is a proxy that ends the connection at the first request of each kind that it is told
// to break.
type flaky struct {
	next   http.Handler
	breaks func(r *http.Request) bool

	mu   sync.Mutex
	seen map[string]int // requests by method and URL
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	f.seen[name]++
	first := f.seen[name] == 1
	f.mu.Unlock()
	if first && f.breaks(r) {
		panic(http.ErrAbortHandler)
	}
	f.next.ServeHTTP(w, r)
}

func TestReadmesClientsWork(t *testing.T) {
	t.Parallel()
	for _, s := range snippets {
		t.Run(s.language, func(t *testing.T) {
			t.Parallel()
			path := program(t, s.program)
			file := filepath.Join(t.TempDir(), s.file)
			if err := os.WriteFile(file, []byte(fenced(t, s.language+"\n"+s.comment+" "+s.file)), 0o600); err != nil {
				t.Fatal(err)
			}
			p := start(t, small(t, "listen: 127.0.0.1:0\n"))
			to, err := url.Parse("http://" + p.addr)
			if err != nil {
				t.Fatal(err)
			}
			run := func(breaks func(r *http.Request) bool) (out string, seen map[string]int, err error) {
				f := &flaky{next: httputil.NewSingleHostReverseProxy(to), breaks: breaks, seen: map[string]int{}}
				server := httptest.NewServer(f)
				defer server.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
				defer cancel()
				cmd := exec.CommandContext(ctx, path, append(s.args, file)...)
				cmd.Env = append(os.Environ(), "SERVER="+server.URL, "no_proxy=*", "PYTHONIOENCODING=utf-8")
				var stderr strings.Builder
				cmd.Stderr = &stderr
				b, err := cmd.Output()
				if err != nil {
					t.Logf("%s: %v: %s", s.file, err, stderr.String())
				}
				return string(b), f.seen, err
			}

			// Calls that may be repeated are repeated after a broken connection.
			out, _, err := run(func(r *http.Request) bool {
				return r.Method != "POST" || strings.Contains(r.URL.Path, "/lock/")
			})
			if want := "1\n" + s.lost + "\nhello\n"; err != nil || out != want {
				t.Errorf("it prints %q (%v), want %q", out, err, want)
			}
			want(t, http.DefaultClient, "GET", to.String()+"/db/shop/kv/gr%C3%B6%C3%9Fe", http.StatusOK, "hello")
			want(t, http.DefaultClient, "GET", to.String()+"/db/shop/sequence/order%201%2F2", http.StatusOK, "1\n")
			if code, _ := ask(t, http.DefaultClient, "GET", to.String()+"/db/shop/lock/night%2Fly"); code != http.StatusNotFound {
				t.Errorf("the lock is not given back: %d", code)
			}

			// A POST on a sequence is not repeated.
			_, seen, err := run(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/sequence/") })
			if err == nil {
				t.Error("a sequence without an answer is no failure")
			}
			if len(seen) != 1 {
				t.Errorf("after a failure it goes on: %v", seen)
			}
			for name, n := range seen {
				if n != 1 {
					t.Errorf("%s was sent %d times", name, n)
				}
			}
			p.stop()
		})
	}
}
