package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/internal/test/loopback"
)

// fenced returns the documents' first code block of a language. A block that is
// missing fails the test.
func fenced(t *testing.T, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(documents(t))
	if m == nil {
		t.Fatalf("neither README.md nor docs has a block ```%s", language)
	}
	return m[1]
}

// program returns the path of a program, or skips the test. In CI all programs are installed.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CLOUDDRAGON_CRASH_REQUIRED") != "" {
		t.Fatalf("%s is not installed", names[0])
	}
	t.Skipf("%s is not installed: what the documents say about it is NOT TESTED here", names[0])
	return ""
}

// proxy is a kind of proxy that docs/operations.md has a configuration for.
type proxy struct {
	language string
	programs []string
	listen   string // the text in the configuration that sets its own address
	// run returns the complete configuration and the arguments to run the proxy with it.
	run func(dir, snippet string) (config string, args []string)
}

var proxies = []proxy{
	{"nginx", []string{"nginx", "/usr/sbin/nginx"}, "listen 80;", func(dir, snippet string) (string, []string) {
		paths := ""
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			paths += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
		}
		return "daemon off;\nmaster_process off;\npid " + dir + "/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n" + paths + snippet + "}\n",
			[]string{"-p", dir, "-e", "stderr", "-c"}
	}},
	{"haproxy", []string{"haproxy", "/usr/sbin/haproxy"}, "bind :80", func(_, snippet string) (string, []string) {
		return snippet, []string{"-db", "-f"}
	}},
}

// start runs the proxy in front of a server and returns its address.
func (x proxy) start(t *testing.T, server string) string {
	t.Helper()
	path := program(t, x.programs...)
	addr := ownAddr(t)
	snippet := fenced(t, x.language)
	for old, replacement := range map[string]string{
		x.listen:         strings.NewReplacer(":80", addr, " 80", " "+addr).Replace(x.listen),
		"127.0.0.1:8081": server,
	} {
		if strings.Count(snippet, old) != 1 {
			t.Fatalf("the configuration for %s has %q %d times, want once", x.language, old, strings.Count(snippet, old))
		}
		snippet = strings.Replace(snippet, old, replacement, 1)
	}
	dir := t.TempDir()
	config, args := x.run(dir, snippet)
	if os.Geteuid() == 0 && x.language == "nginx" {
		config = "user root;\n" + config
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	runProxy(t, addr, path, append(args, file)...)
	return addr
}

// ownAddr returns an address that neither another process nor another test gets, so that it stays
// free, between two runs of a server too.
func ownAddr(t *testing.T) string {
	t.Helper()
	return loopback.Free(t, "127.66.0.2")
}

// runProxy runs a proxy until the test is over, and returns once it listens.
func runProxy(t *testing.T, addr, path string, args ...string) {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		<-ended
		if t.Failed() {
			t.Logf("%s says:\n%s", path, log.String())
		}
	})
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v; it says:\n%s", path, err, log.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on %s", path, addr)
		}
	}
}

func TestReadmesProxiesPassEverythingOn(t *testing.T) {
	t.Parallel()
	for _, x := range proxies {
		t.Run(x.language, func(t *testing.T) {
			t.Parallel()
			p := start(t, small(t, "listen: 127.0.0.1:0\n"))
			base, direct := "http://"+x.start(t, p.addr), "http://"+p.addr
			c := &http.Client{Transport: new(http.Transport)}
			defer c.CloseIdleConnections()

			// Names arrive as they were sent.
			for _, id := range []string{"a%2Fb", "a%20b", "a%2f%2e", "%25", "x+y", "%c3%b6", "a;b"} {
				want(t, c, "POST", base+"/db/1/sequence/"+id, http.StatusOK, "1\n")
				want(t, c, "GET", direct+"/db/1/sequence/"+id, http.StatusOK, "1\n")
			}
			if code, _ := ask(t, c, "GET", base+"/db/1/sequence/a/b"); code != http.StatusNotFound {
				t.Errorf("a path that is no route: %d, want 404", code)
			}

			// A refusal arrives with its text and headers.
			want(t, c, "POST", base+"/db/1/lock/l?id=a&dur=60", http.StatusOK, "1\n")
			res := send(t, c, "POST", base+"/db/1/lock/l?id=b", "")
			if res.StatusCode != http.StatusConflict || res.Header.Get("Lock-Id") != "a" || res.Header.Get("Retry-After") == "" {
				t.Errorf("a lock that is held: %d %v", res.StatusCode, res.Header)
			}

			// So does the refusal of a value that is too large, and the largest value arrives
			// too.
			if res := send(t, c, "POST", base+"/db/1/kv/v", strings.Repeat("v", 64<<10)); res.StatusCode != http.StatusOK {
				t.Errorf("the largest value: %d", res.StatusCode)
			}
			if _, got := ask(t, c, "GET", base+"/db/1/kv/v"); len(got) != 64<<10 {
				t.Errorf("the largest value comes back with %d bytes", len(got))
			}
			for _, size := range []int{64<<10 + 1, 1 << 20, 16 << 20} {
				if res := send(t, c, "POST", base+"/db/1/kv/v", strings.Repeat("v", size)); res.StatusCode != http.StatusRequestEntityTooLarge {
					t.Errorf("a value of %d bytes: %d, want 413", size, res.StatusCode)
				}
				// A server that refuses a body without reading it may end the connection. A later
				// POST must not be sent on it.
				c.CloseIdleConnections()
			}

			// A waiter that hangs up leaves the queue.
			want(t, c, "POST", base+"/db/1/mlock/m?id=a&dur=600", http.StatusOK, "2\n")
			ctx, hangUp := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, "POST", base+"/db/1/mlock/m?id=b&wait=300", nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := c.Do(r)
				done <- err
			}()
			p.waits("mlock", 1)
			hangUp()
			if err := <-done; err == nil {
				t.Error("a waiter that hung up got an answer")
			}
			p.waits("mlock", 0)
			p.stop()
		})
	}
}

// send sends a body and returns the answer, whose body is read.
func send(t *testing.T, c *http.Client, method, url, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res
}

// TestReadmesProxiesKeepConnectionsAndRepeatNothing puts the proxies in front of a server that
// counts requests.
func TestReadmesProxiesKeepConnectionsAndRepeatNothing(t *testing.T) {
	t.Parallel()
	for _, x := range proxies {
		t.Run(x.language, func(t *testing.T) {
			t.Parallel()
			var conns, posts atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/db/1/sequence/break":
					posts.Add(1)
					panic(http.ErrAbortHandler) // ends the connection
				case "/db/1/sequence/conn":
					fmt.Fprintln(w, r.RemoteAddr)
				}
			}))
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					conns.Add(1)
				}
			}
			s.Start()
			defer s.Close()
			base := "http://" + x.start(t, s.Listener.Addr().String())
			c := &http.Client{Transport: new(http.Transport)}
			defer c.CloseIdleConnections()
			_, first := ask(t, c, "POST", base+"/db/1/sequence/conn")
			for range 3 {
				if _, again := ask(t, c, "POST", base+"/db/1/sequence/conn"); again != first {
					t.Errorf("one client's requests come from %s and then from %s", first, again)
				}
			}
			// HAProxy closes the client's connection if the connection to the server was a
			// reused one.
			res, err := c.Post(base+"/db/1/sequence/break", "", nil)
			if err == nil {
				if err := res.Body.Close(); err != nil {
					t.Error(err)
				}
				if res.StatusCode != http.StatusBadGateway {
					t.Errorf("a request without an answer: %d, want 502", res.StatusCode)
				}
			}
			if n := posts.Load(); n != 1 {
				t.Errorf("a request without an answer was sent %d times", n)
			}
		})
	}
}

func TestReadmesProxiesWaitForLongerThanTheServer(t *testing.T) {
	config, err := os.ReadFile("../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^  wait: (\S+)`).FindSubmatch(config)
	if m == nil {
		t.Fatal("config.yml has no limits.wait")
	}
	limit, err := time.ParseDuration(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	for language, settings := range map[string][]string{
		"nginx":   {"proxy_read_timeout"},
		"haproxy": {"timeout client", "timeout server"},
	} {
		block := fenced(t, language)
		for _, name := range settings {
			m := regexp.MustCompile(name + ` (\d+m)`).FindStringSubmatch(block)
			if m == nil {
				t.Errorf("%s: no %s in minutes", language, name)
				continue
			}
			if d, err := time.ParseDuration(m[1]); err != nil || d <= limit {
				t.Errorf("%s: %s is %s (%v), want more than limits.wait, %v", language, name, m[1], err, limit)
			}
		}
	}
}
