package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// shards is an HAProxy with docs/haproxy.cfg and the servers behind it.
type shards struct {
	t     *testing.T
	base  string // of the proxy
	files string // haproxy.cfg and shards.map
	c     *http.Client
}

// startShards runs HAProxy with docs/haproxy.cfg in front of four servers: the primary and
// the standby of shard0, then those of shard1. lines are those of the map.
func startShards(t *testing.T, servers [4]string, lines string) *shards {
	t.Helper()
	path := program(t, "haproxy", "/usr/sbin/haproxy")
	b, err := os.ReadFile("../../docs/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	s := &shards{t: t, files: t.TempDir(), c: &http.Client{Transport: new(http.Transport)}}
	t.Cleanup(s.c.CloseIdleConnections)
	addr := ownAddr(t)
	s.base = "http://" + addr
	config := replaceAll(t, string(b), map[string]int{
		"bind :8080": 1, "/etc/haproxy/shards.map": 2, "10.0.0.1:8081": 1, "10.0.0.2:8081": 1, "10.0.0.3:8081": 1, "10.0.0.4:8081": 1,
	}, "bind :8080", "bind "+addr, "/etc/haproxy/shards.map", s.mapFile(),
		"10.0.0.1:8081", servers[0], "10.0.0.2:8081", servers[1], "10.0.0.3:8081", servers[2], "10.0.0.4:8081", servers[3],
		// The test need not wait long for checks, and a busy machine does not look like a dead
		// one.
		"inter 1s", "inter 50ms", "timeout connect 5s", "timeout connect 5s\n    timeout check 10s")
	file := filepath.Join(s.files, "haproxy.cfg")
	for name, text := range map[string]string{file: config, s.mapFile(): lines} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runProxy(t, addr, path, "-db", "-f", file)
	return s
}

func (s *shards) mapFile() string { return filepath.Join(s.files, "shards.map") }

// replaceAll replaces texts in a document and checks how often each of them occurs.
func replaceAll(t *testing.T, text string, times map[string]int, oldNew ...string) string {
	t.Helper()
	for old, n := range times {
		if got := strings.Count(text, old); got != n {
			t.Fatalf("the document has %q %d times, want %d", old, got, n)
		}
	}
	return strings.NewReplacer(oldNew...).Replace(text)
}

// becomes repeats a call until it has the wanted status, because a health check of HAProxy has
// to notice first.
func (s *shards) becomes(status int, method, path string) {
	s.t.Helper()
	eventually(s.t, func() string {
		got, body := ask(s.t, s.c, method, s.base+path)
		if got == status {
			return ""
		}
		return fmt.Sprintf("%s %s: %d %q, want %d", method, path, got, body, status)
	})
}

// standby is a fake server of which only the answers to health checks matter.
type standby struct {
	*httptest.Server
	primary atomic.Bool
	asked   atomic.Int64 // for anything but its health
	checked chan int     // gets one for each health check
}

// isDown waits until HAProxy has seen that it is not the primary. Until its first check
// HAProxy takes a server for healthy.
func (s *standby) isDown(t *testing.T) {
	t.Helper()
	for range 3 { // after two failures it is down, and the third check shows that both are noted
		soon(t, "a health check of a standby", s.checked)
	}
}

func newStandby(t *testing.T) *standby {
	s := &standby{checked: make(chan int, 1000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.String() != "/healthz?role=primary":
			s.asked.Add(1)
			fmt.Fprintln(w, "standby")
			return
		case !s.primary.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		select {
		case s.checked <- 1:
		default:
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *standby) addr() string { return s.Listener.Addr().String() }

// escaped encodes a name as shards.map has it.
func escaped(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

// spellings are ways to write one name in a path.
func spellings(name string) []string {
	all, lower, canonical := "", "", escaped(name)
	for i := range len(name) {
		all += fmt.Sprintf("%%%02X", name[i])
		lower += fmt.Sprintf("%%%02x", name[i])
	}
	return []string{canonical, all, lower}
}

func TestHAProxySpreadsAccountsByMapAndHash(t *testing.T) {
	t.Parallel()
	a, b := start(t, small(t, "listen: 127.0.0.1:0\n")), start(t, small(t, "listen: 127.0.0.1:0\n"))
	sa, sb := newStandby(t), newStandby(t)
	var lines strings.Builder
	var names []string
	for i := 1; i < 256; i++ {
		names = append(names, "n"+string([]byte{byte(i)}))
	}
	names = append(names, "a/b", "%", "%2F", "a b", "a+b", "ö", "#a", "shard1", strings.Repeat("x", 64))
	for i, name := range names {
		fmt.Fprintf(&lines, "%s shard%d\n", escaped(name), i%2)
	}
	s := startShards(t, [4]string{a.addr, sa.addr(), b.addr, sb.addr()}, lines.String())
	sa.isDown(t)
	sb.isDown(t)
	s.becomes(http.StatusOK, "GET", "/healthz")
	for i, name := range names {
		for n, path := range spellings(name) {
			want(t, s.c, "POST", s.base+"/db/"+path+"/sequence/a%2Fb", http.StatusOK, fmt.Sprintf("%d\n", n+1))
		}
		direct := []string{a.addr, b.addr}
		want(t, s.c, "GET", "http://"+direct[i%2]+"/db/"+escaped(name)+"/sequence/a%2Fb", http.StatusOK, "3\n")
		if code, _ := ask(t, s.c, "GET", "http://"+direct[1-i%2]+"/db/"+escaped(name)+"/sequence/a%2Fb"); code != http.StatusNotFound {
			t.Errorf("account %q is on both shards: %d", name, code)
		}
	}

	// The hash always sends an account to the same shard, and both shards have some.
	on := [2]int{}
	for i := range 64 {
		acc := fmt.Sprintf("hashed-%d", i)
		for n := range 3 {
			want(t, s.c, "POST", s.base+"/db/"+acc+"/sequence/s", http.StatusOK, fmt.Sprintf("%d\n", n+1))
		}
		for k, addr := range []string{a.addr, b.addr} {
			if code, _ := ask(t, s.c, "GET", "http://"+addr+"/db/"+acc+"/sequence/s"); code == http.StatusOK {
				on[k]++
			}
		}
	}
	if on[0] < 16 || on[1] < 16 || on[0]+on[1] != 64 {
		t.Errorf("64 accounts are on the shards like this: %v", on)
	}

	for _, path := range []string{"/", "/metrics", "/backup", "/db", "/openapi.json"} {
		want(t, s.c, "GET", s.base+path, http.StatusNotFound, "this is about one server: ask it directly\n")
	}
	if n := sa.asked.Load() + sb.asked.Load(); n != 0 {
		t.Errorf("standbys were asked %d times", n)
	}

	// A waiter that hangs up leaves the queue.
	want(t, s.c, "POST", s.base+"/db/n%01/mlock/m?id=a&dur=600", http.StatusOK, "1\n")
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", s.base+"/db/n%01/mlock/m?id=b&wait=300", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.c.Do(r)
		done <- err
	}()
	a.waits("mlock", 1)
	hangUp()
	if err := <-done; err == nil {
		t.Error("a waiter that hung up got an answer")
	}
	a.waits("mlock", 0)
	a.stop()
	b.stop()
}

// TestHAProxyNeverMovesAnAccountToAnotherShard stops the servers of one shard.
func TestHAProxyNeverMovesAnAccountToAnotherShard(t *testing.T) {
	t.Parallel()
	a, b := start(t, small(t, "listen: 127.0.0.1:0\n")), start(t, small(t, "listen: 127.0.0.1:0\n"))
	sa, sb := newStandby(t), newStandby(t)
	s := startShards(t, [4]string{a.addr, sa.addr(), b.addr, sb.addr()}, "shop shard0\nbilling shard1\n")
	sa.isDown(t)
	sb.isDown(t)
	s.becomes(http.StatusOK, "GET", "/healthz")
	want(t, s.c, "POST", s.base+"/db/shop/sequence/s", http.StatusOK, "1\n")
	want(t, s.c, "POST", s.base+"/db/billing/sequence/s", http.StatusOK, "1\n")
	a.stop()
	s.becomes(http.StatusServiceUnavailable, "GET", "/healthz")
	for range 20 {
		if code, body := ask(t, s.c, "POST", s.base+"/db/shop/sequence/s"); code < 500 {
			t.Fatalf("an account of a shard that is down: %d %q", code, body)
		}
	}
	want(t, s.c, "POST", s.base+"/db/billing/sequence/s", http.StatusOK, "2\n")
	if code, _ := ask(t, s.c, "GET", "http://"+b.addr+"/db/shop/sequence/s"); code != http.StatusNotFound {
		t.Errorf("the other shard has the account: %d", code)
	}
	if n := sa.asked.Load(); n != 0 {
		t.Errorf("the standby was asked %d times", n)
	}
	// The standby is promoted.
	sa.primary.Store(true)
	s.becomes(http.StatusOK, "POST", "/db/shop/sequence/s")
	s.becomes(http.StatusOK, "GET", "/healthz")
	if sa.asked.Load() == 0 || sb.asked.Load() != 0 {
		t.Errorf("the new primary was asked %d times, the other shard's standby %d times", sa.asked.Load(), sb.asked.Load())
	}
	b.stop()
}

// TestHAProxyReadsWhatMoveWrites moves accounts with odd names, behind HAProxy.
func TestHAProxyReadsWhatMoveWrites(t *testing.T) {
	t.Parallel()
	a, b := start(t, small(t, "listen: 127.0.0.1:0\n")), start(t, small(t, "listen: 127.0.0.1:0\n"))
	sa, sb := newStandby(t), newStandby(t)
	servers := [4]string{a.addr, sa.addr(), b.addr, sb.addr()}
	names := []string{"shop", "a/b", "a b", "#", "100%", "\xff\x01\n", "é"}
	lines := fmt.Sprintf("# backend shard0 http://%s\n# backend shard1 http://%s\n", a.addr, b.addr)
	for _, name := range names[:3] { // the hash decides where the others are
		lines += escaped(name) + " shard0\n"
	}
	before := startShards(t, servers, lines)
	before.becomes(http.StatusOK, "GET", "/healthz")
	for _, name := range names {
		path := "/db/" + escaped(name) + "/sequence/s"
		want(t, before.c, "POST", before.base+path, http.StatusOK, "1\n")
		from, to := a.addr, b.addr
		if code, _ := ask(t, before.c, "GET", "http://"+a.addr+path); code != http.StatusOK {
			from, to = to, from
		}
		cmd := exec.Command(binary, "move", "-account", name, "-from", "http://"+from, "-to", "http://"+to, "-map", before.mapFile())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("moving %q: %v\n%s", name, err, out)
		}
		// Until HAProxy is reloaded it asks the server that no longer has the account.
		if code, body := ask(t, before.c, "POST", before.base+path); code != http.StatusMisdirectedRequest {
			t.Errorf("before the reload, %q: %d %q", name, code, body)
		}
	}
	changed, err := os.ReadFile(before.mapFile())
	if err != nil {
		t.Fatal(err)
	}
	after := startShards(t, servers, string(changed))
	after.becomes(http.StatusOK, "GET", "/healthz")
	for _, name := range names {
		for n, path := range spellings(name) {
			want(t, after.c, "POST", after.base+"/db/"+path+"/sequence/s", http.StatusOK, fmt.Sprintf("%d\n", n+2))
		}
	}
	a.stop()
	b.stop()
}

func TestHAProxyWaitsForLongerThanTheServer(t *testing.T) {
	b, err := os.ReadFile("../../docs/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"timeout client", "timeout server"} {
		m := regexp.MustCompile(name + ` (\d+m)`).FindSubmatch(b)
		if m == nil {
			t.Errorf("no %s in minutes", name)
			continue
		}
		if d, err := time.ParseDuration(string(m[1])); err != nil || d <= Defaults().Limits.Wait {
			t.Errorf("%s is %s (%v), want more than limits.wait", name, m[1], err)
		}
	}
}
