package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lockProgram builds the program for the tests of its command lock: with the race detector if
// the tests have it.
var lockProgram = sync.OnceValues(func() (string, error) {
	if raceFlags == nil {
		return binary, nil
	}
	out := filepath.Join(filepath.Dir(binary), "clouddragon-race")
	b, err := exec.Command("go", append(append([]string{"build"}, raceFlags...), "-o", out, ".")...).CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(b), Err: err}
	}
	return out, nil
})

// lockCommand returns `clouddragon lock` with arguments, not started yet. It has no
// controlling terminal.
func lockCommand(t *testing.T, server string, args ...string) *script {
	t.Helper()
	program, err := lockProgram()
	if err != nil {
		t.Fatal(err)
	}
	return command(t, server, append([]string{program, "lock"}, args...)...)
}

// command returns a script that runs any command line.
func command(t *testing.T, server string, argv ...string) *script {
	t.Helper()
	s := &script{Cmd: exec.Command(argv[0], argv[1:]...), t: t}
	s.Env = append(os.Environ(), "no_proxy=*", "CLOUDDRAGON_TOKEN=", "CLOUDDRAGON_SERVER="+server, "GORACE=halt_on_error=1 exitcode=99")
	s.Stderr = &s.stderr
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.WaitDelay = patience // for a process that lives on with our stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := out.(*os.File); ok { // one that hangs is a failure
		if err := f.SetReadDeadline(time.Now().Add(3 * patience)); err != nil {
			t.Fatal(err)
		}
	}
	s.lines = bufio.NewScanner(out)
	t.Cleanup(func() {
		if s.Process != nil && s.ProcessState == nil {
			_ = s.Process.Kill() // it may have ended by itself
			_ = s.Wait()         // as said
		}
	})
	return s
}

// runLock starts `clouddragon lock`.
func runLock(t *testing.T, server string, args ...string) *script {
	t.Helper()
	s := lockCommand(t, server, args...)
	s.begin()
	return s
}

// A test that does not want to lose its lock uses a -dur of 9 or more and a short -kill-after: with
// -dur 9 and -kill-after 100ms a renewal may take 5 seconds, with -dur 6 alone less than 1.5.

// beginLock starts `clouddragon lock` with a command that says when it has begun. It
// returns the command's stdin too.
func beginLock(t *testing.T, server string, args ...string) (*script, io.WriteCloser) {
	t.Helper()
	s := lockCommand(t, server, args...)
	in := s.input()
	s.begin()
	s.says("begun")
	return s, in
}

func closeInput(t *testing.T, in io.Closer) {
	t.Helper()
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}

// input makes the stdin of a command that is not started yet.
func (s *script) input() io.WriteCloser {
	s.t.Helper()
	w, err := s.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

// complains waits for the end and checks that stderr has one line, which contains text.
func (s *script) complains(code int, text string) {
	s.t.Helper()
	s.ends(code)
	got := s.stderr.String()
	if !strings.Contains(got, text) || strings.Count(got, "\n") != 1 {
		s.t.Errorf("%v prints on stderr %q, want one line that holds %q", s.Args[1:], got, text)
	}
}

// send sends a signal to the process that was started.
func (s *script) send(sig syscall.Signal) {
	s.t.Helper()
	if err := s.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

// stops waits until the process is stopped.
func (s *script) stops() {
	s.t.Helper()
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(s.Process.Pid, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || !status.Stopped() {
			s.t.Fatalf("%v: %v, status %#x, want it stopped", s.Args[1:], err, status)
		}
		return
	}
}

// keeper returns the pid of the second process of a running `clouddragon lock`.
func (s *script) keeper() int {
	s.t.Helper()
	pid := strconv.Itoa(s.Process.Pid)
	b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		s.t.Fatal(err)
	}
	for tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/children"); len(strings.Fields(string(b))) == 0 && len(tasks) > 0; tasks = tasks[1:] {
		if b, err = os.ReadFile(tasks[0]); err != nil {
			s.t.Fatal(err)
		}
	}
	children := strings.Fields(string(b))
	if len(children) != 1 {
		s.t.Fatalf("%v has the children %q, want one", s.Args[1:], children)
	}
	n, err := strconv.Atoi(children[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// faulty is a proxy in front of a server. A test can make it misbehave.
type faulty struct {
	url  string
	next http.Handler

	mu   sync.Mutex
	hook func(w http.ResponseWriter, r *http.Request, kind string) bool // true: answered
	took []url.Values                                                   // the queries that asked for a lock

	renewals chan struct{} // one for each renewal that was answered
	closing  chan struct{} // closed at the end of the test
}

// newFaulty returns a proxy of the server at an address.
func newFaulty(t *testing.T, addr string) *faulty {
	t.Helper()
	f := &faulty{renewals: make(chan struct{}, 1000), closing: make(chan struct{})}
	f.next = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	server := httptest.NewServer(f)
	f.url = server.URL
	t.Cleanup(func() {
		close(f.closing)
		server.Close()
	})
	return f
}

// on sets what to do with requests: take, renew, give or get.
func (f *faulty) on(hook func(w http.ResponseWriter, r *http.Request, kind string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func kindOfCall(r *http.Request) string {
	switch {
	case r.Method == "DELETE":
		return "give"
	case r.Method == "POST" && r.URL.Query().Has("token"):
		return "renew"
	case r.Method == "POST":
		return "take"
	}
	return "get"
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOfCall(r)
	f.mu.Lock()
	hook := f.hook
	if kind == "take" {
		f.took = append(f.took, r.URL.Query())
	}
	f.mu.Unlock()
	if hook == nil || !hook(w, r, kind) {
		f.next.ServeHTTP(w, r)
	}
	if kind == "renew" {
		f.renewals <- struct{}{}
	}
}

// renewed waits for renewals.
func (f *faulty) renewed(t *testing.T, n int) {
	t.Helper()
	for timeout := time.After(3 * patience); n > 0; n-- {
		select {
		case <-f.renewals:
		case <-timeout:
			t.Fatalf("the lock is not renewed: %d renewals are missing", n)
		}
	}
}

// asked returns the queries that asked for a lock.
func (f *faulty) asked() []url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]url.Values(nil), f.took...)
}

// hang answers nothing until the client is gone or the test ends.
func (f *faulty) hang(r *http.Request) bool {
	select {
	case <-r.Context().Done():
	case <-f.closing:
	}
	panic(http.ErrAbortHandler)
}

// reset ends the connection without an answer, by RST.
func reset(w http.ResponseWriter) bool {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed next
		}
		_ = conn.Close() // as said
	}
	return true
}

// half sends a part of an answer and ends the connection.
func half(w http.ResponseWriter) bool {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\r\n12")
		_ = conn.Close() // as said
	}
	return true
}

// lockURL is the address of a lock of the account that `clouddragon lock` uses.
func lockURL(p *process, name string) string { return "http://" + p.addr + "/db/default/lock/" + name }

// free checks that nobody holds a lock.
func free(t *testing.T, p *process, name string) {
	t.Helper()
	if code, body := ask(t, http.DefaultClient, "GET", lockURL(p, name)); code != http.StatusNotFound {
		t.Errorf("lock %s is still held: %d %s", name, code, body)
	}
}

// force takes a lock away from whoever holds it.
func force(t *testing.T, p *process, name string) {
	t.Helper()
	want(t, http.DefaultClient, "DELETE", lockURL(p, name)+"?force=true", http.StatusNoContent, "")
}
