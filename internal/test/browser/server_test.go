package browser

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/loopback"
)

// patience is how long a test waits for what should be there soon.
const patience = 20 * time.Second

var (
	binary string    // the program, built once
	shared *chromium // the browser of all tests; nil: there is none
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the program, starts the browser if there is one, and runs the tests.
func run(m *testing.M) (code int) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return m.Run() // each says that it is skipped
	}
	dir, err := os.MkdirTemp("", "clouddragon-browser")
	if err != nil {
		return failed(err)
	}
	defer func() {
		// Processes of the browser may still write to its profile.
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		err := os.RemoveAll(dir)
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); err = os.RemoveAll(dir) {
			<-tick.C
		}
		if err != nil {
			code = failed(err)
		}
	}()
	binary = filepath.Join(dir, "clouddragon")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3-test", "-o", binary, "./cmd/clouddragon")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		return failed(fmt.Errorf("go build: %w\n%s", err, out))
	}
	if shared, err = startChromium(path, filepath.Join(dir, "profile")); err != nil {
		return failed(err)
	}
	// They wait for the page most of the time. A -parallel on the command line wins.
	if err := flag.Set("test.parallel", "4"); err != nil {
		return failed(err)
	}
	code = m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "the browser: %v\n%s\n", err, shared.said.String())
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// server is a running program on an address of its own.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	config string
	addr   string
	token  string // which the test uses
}

// startServer starts the program with additions to its configuration.
func startServer(t *testing.T, more string) *server {
	t.Helper()
	if shared == nil {
		if os.Getenv("CLOUDDRAGON_CRASH_REQUIRED") != "" {
			t.Fatal("chromium is not installed")
		}
		t.Skip("chromium is not installed: the status page is NOT TESTED here")
	}
	t.Parallel()
	s := &server{t: t, addr: ownAddr(t), config: filepath.Join(t.TempDir(), "config.yml")}
	text := fmt.Sprintf("listen: %s\ndata: %s\nlog: {segment: 1MiB}\nlimits: {value: 256KiB}\n%s", s.addr, t.TempDir(), more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill() // it may have ended by itself
			_ = s.cmd.Wait()         // as said
		}
	})
	s.start()
	return s
}

// ownAddr returns an address that nobody else is given, so that it stays free for a restart.
func ownAddr(t *testing.T) string {
	t.Helper()
	return loopback.Free(t, "127.66.0.16")
}

// start starts the program and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(binary, "-config", s.config)
	s.cmd.Env = append(os.Environ(), "CLOUDDRAGON_TOKEN=")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	log := ""
	for lines.Scan() {
		log += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "listening") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }() // until the program ends
			return
		}
	}
	s.t.Fatalf("the server does not start: %s", log)
}

// stop ends the program.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server: %v", err)
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

// url is the address of a path.
func (s *server) url(path string) string { return "http://" + s.addr + path }

// ask sends a request, as curl would, and returns the status and the body.
func (s *server) ask(method, path, body string, header ...string) (int, string) {
	s.t.Helper()
	status, text, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return status, text
}

// want sends a request that has to succeed, and returns the body.
func (s *server) want(method, path, body string, header ...string) string {
	s.t.Helper()
	status, text := s.ask(method, path, body, header...)
	if status/100 != 2 {
		s.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return strings.TrimSuffix(text, "\n")
}

func (s *server) try(method, path, body string, header ...string) (status int, text string, err error) {
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url(path), strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), errors.Join(err, res.Body.Close())
}
