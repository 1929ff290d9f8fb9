package main

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
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	// Most tests wait for other processes and for time to pass, so many run at once. -parallel overrides it.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clouddragon")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "clouddragon")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3-test", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience is how long a test waits for something that should happen at once.
const patience = 20 * time.Second

// process is a running server. The end of the test ends it.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	config string      // the file
	addr   string      // as the line `listening` has it
	lines  chan string // of stderr; closed at its end
	log    string      // the lines taken so far
}

// small is a configuration with small files, so that tests are quick.
func small(t *testing.T, more string) string {
	return fmt.Sprintf("data: %s\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n%s", t.TempDir(), more)
}

// launch starts the program with a configuration and additions to its environment.
func launch(t *testing.T, config string, env ...string) *process {
	t.Helper()
	p := prepare(t, config, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.run()
	p.follow(stderr)
	return p
}

// prepare returns a program that does not run yet and whose stderr is discarded.
func prepare(t *testing.T, config string, env ...string) *process {
	t.Helper()
	p := &process{t: t, config: filepath.Join(t.TempDir(), "config.yml"), lines: make(chan string, 1000)}
	p.configure(config)
	p.cmd = exec.Command(binary, "-config", p.config)
	p.cmd.Env = append(append(os.Environ(), "CLOUDDRAGON_TOKEN="), env...)
	return p
}

// configure writes the configuration.
func (p *process) configure(config string) {
	p.t.Helper()
	if err := os.WriteFile(p.config, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// run starts the program.
func (p *process) run() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // it may have ended by itself
			_ = p.cmd.Wait()         // as said
		}
	})
}

// follow reads the log.
func (p *process) follow(stderr io.Reader) {
	go func() {
		defer close(p.lines)
		s := bufio.NewScanner(stderr)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			p.lines <- s.Text()
		}
	}()
}

// start launches the program and waits until it serves.
func start(t *testing.T, config string, env ...string) *process {
	t.Helper()
	p := launch(t, config, env...)
	p.serves()
	return p
}

// serves waits until the program serves, and returns its line that says so.
func (p *process) serves() string {
	p.t.Helper()
	line := p.line("listening")
	_, rest, _ := strings.Cut(line, "addr=")
	p.addr, _, _ = strings.Cut(rest, " ")
	return line
}

// line waits for a line of the log that holds text.
func (p *process) line(text string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the process ended without a line that holds %q; it said:\n%s", text, p.log)
			}
			p.log += line + "\n"
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			p.t.Fatalf("no line that holds %q; the process said:\n%s", text, p.log)
		}
	}
}

// logs waits for a line that holds text, unless it has come already.
func (p *process) logs(text string) {
	p.t.Helper()
	if !strings.Contains(p.log, text) {
		p.line(text)
	}
}

// exit waits for the end of the process and returns its exit code.
func (p *process) exit() int {
	p.t.Helper()
	timeout := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	for line := range p.lines {
		p.log += line + "\n"
	}
	err := p.cmd.Wait()
	if !timeout.Stop() {
		p.t.Errorf("the process did not end within %v; it said:\n%s", patience, p.log)
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		p.t.Errorf("waiting for the process: %v", err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

// pause sends SIGSTOP and waits until every thread has stopped, which takes a moment.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	eventually(p.t, func() string {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil || len(stats) == 0 {
			return fmt.Sprintf("no threads: %v", err)
		}
		for _, name := range stats {
			stat, err := os.ReadFile(name)
			if err != nil || !strings.Contains(string(stat), ") T ") {
				return fmt.Sprintf("%s: %s (%v), want that it has stopped", name, stat, err)
			}
		}
		return ""
	})
}

// stop ends the server and checks that it exits with 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		p.t.Errorf("after SIGTERM: exit %d, want 0; it said:\n%s", code, p.log)
	}
}

// eventually polls until a check passes. It is for states that a test cannot wait for
// otherwise.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		why := wrong()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v: %s", patience, why)
		}
	}
}

// ask sends a request and returns the status and the body.
func ask(t *testing.T, c *http.Client, method, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// want sends a request and compares the answer.
func want(t *testing.T, c *http.Client, method, url string, status int, body string) {
	t.Helper()
	if s, b := ask(t, c, method, url); s != status || b != body {
		t.Errorf("%s %s: got %d %q, want %d %q", method, url, s, b, status, body)
	}
}
