package crashtest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is the longest that a test waits for anything.
const patience = 30 * time.Second

// server is one run of the program.
type server struct {
	cmd    *exec.Cmd
	addr   string // where it listens, once it does
	exited chan struct{}
	up     chan struct{} // closed once it listens

	mu  sync.Mutex // guards log
	log strings.Builder
}

// withFront says that servers have event loops in front of net/http.
var withFront = true

// setup is how a server is run.
type setup struct {
	binary string
	data   string
	config string // lines of config.yml besides listen and data
	files  uint64 // limit on descriptors; 0: the test's own
	group  string // directory of the control group to run in; empty: the test's own
	listen string // empty: a free port of 127.0.0.1
	step   string // file that says how wrong the wall clock is; see stepVariable
	node   string // network namespace to run in; empty: the test's own
}

// stepVariable is the environment variable with the name of a file. The file says by how many
// nanoseconds the wall clock of a server is wrong. Go programs do not ask libc for the time,
// so libfaketime does not work for them.
const stepVariable = "CLOUDDRAGON_CRASH_STEP"

var addrPattern = regexp.MustCompile(`msg=listening addr=(\S+)`)

// launch runs the program without waiting for anything. The end of the test kills it.
func launch(t testing.TB, o setup) *server {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.yml")
	text := fmt.Sprintf("listen: %s\ndata: %s\nfront: {enabled: %v}\n%s\n", cmp.Or(o.listen, "127.0.0.1:0"), o.data, withFront, o.config)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{exited: make(chan struct{}), up: make(chan struct{})}
	s.cmd = exec.Command(o.binary, "-config", config)
	script := ""
	if o.files > 0 {
		script += fmt.Sprintf("ulimit -n %d && ", o.files)
	}
	if o.group != "" {
		script += fmt.Sprintf("echo $$ >'%s/cgroup.procs' && ", o.group)
	}
	if script != "" {
		s.cmd = exec.Command("/bin/sh", "-c", script+`exec "$0" "$@"`, o.binary, "-config", config)
	}
	if o.node != "" {
		s.cmd = inNode(o.node, s.cmd.Args...)
	}
	if o.step != "" {
		s.cmd.Env = append(os.Environ(), stepVariable+"="+o.step)
	}
	// If the test is killed, its servers are killed too.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			s.mu.Lock()
			s.log.WriteString(line)
			s.mu.Unlock()
			if m := addrPattern.FindStringSubmatch(line); m != nil && s.addr == "" {
				s.addr = m[1]
				close(s.up)
			}
			if err != nil {
				break
			}
		}
		// ProcessState says how it ended.
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(s.kill)
	return s
}

// serve runs the program and waits until it listens.
func serve(t testing.TB, o setup) *server {
	t.Helper()
	s := launch(t, o)
	if err := s.listening(); err != nil {
		t.Fatal(err)
	}
	return s
}

// listening waits until it listens; an error if it ends before.
func (s *server) listening() error {
	select {
	case <-s.up:
		return nil
	case <-s.exited:
		return fmt.Errorf("the server ended before it served, %s:\n%s", s.cmd.ProcessState, s.output())
	case <-time.After(patience):
		return fmt.Errorf("the server does not serve after %v:\n%s", patience, s.output())
	}
}

// kill ends it with SIGKILL.
func (s *server) kill() {
	// The only error is that it has ended already.
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// stop ends it with SIGTERM; an error unless it exits 0. The contract says within 10 seconds. The rest
// is for a busy machine.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := s.wait(patience)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d after SIGTERM:\n%s", code, s.output())
	}
	return err
}

// pause stops the process where it is and waits until each of its threads has stopped.
func (s *server) pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// goOn continues a paused process.
func (s *server) goOn() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// wait waits for its end and returns the exit code, -1 if a signal ended it.
func (s *server) wait(limit time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("the server still runs after %v:\n%s", limit, s.output())
	}
}

// output returns what the server has logged; if that is much, the end of it.
func (s *server) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.log.String()
	const most = 8 << 10
	if len(out) > most {
		out = "…" + out[len(out)-most:]
	}
	return out
}

// trouble returns an error if the log has a line that must never occur.
func (s *server) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, bad := range []string{"panic", "DATA RACE", "fatal error", "runtime error", "goroutine "} {
		if at := strings.Index(s.log.String(), bad); at >= 0 {
			return errors.New("the server's log says:\n" + s.log.String()[max(0, at-500):min(s.log.Len(), at+4000)])
		}
	}
	return nil
}

// eventually polls for a condition that has nothing to wait on.
func eventually(what string, ok func() bool) error { return within(patience, what, ok) }

// within polls for a condition that has nothing to wait on, for at most the given time.
func within(d time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not after %v: %s", d, what)
		}
	}
	return nil
}
