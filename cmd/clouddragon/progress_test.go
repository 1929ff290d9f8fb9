package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/systemd"
	"clouddragon/internal/test/memdisk"
)

// lineOf waits for a line of a log.
func lineOf(t *testing.T, log *logLines, text string) string {
	t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case line := <-log.lines:
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("no line that holds %q", text)
		}
	}
}

// slowStart is a server whose start is held up in the middle of the tables and of the log.
type slowStart struct {
	log     *logLines
	manager *manager
	held    chan struct{} // closed once it is held up
	goOn    chan struct{} // to be closed
	ticks   chan time.Time
	stop    chan os.Signal
	reload  chan os.Signal
	code    chan int
}

func startSlowly(t *testing.T) *slowStart {
	t.Helper()
	fsys := memdisk.New()
	signals := make(chan os.Signal, 1)
	url, code := inProcess(t, fsys, signals)
	for range 5 {
		r, err := http.NewRequestWithContext(t.Context(), "PUT", url+"/db/1/kv/a", bytes.NewReader(make([]byte, 60<<10)))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		_ = res.Body.Close() // the body is short
	}
	signals <- syscall.SIGTERM
	if c := soon(t, "the end", code); c != 0 {
		t.Fatalf("exit %d", c)
	}
	// Without the index all of the log is read.
	if err := fsys.Remove("data/index"); err != nil {
		t.Fatal(err)
	}
	s := &slowStart{
		log: &logLines{lines: make(chan string, 1000)}, manager: newManager(t),
		held: make(chan struct{}), goOn: make(chan struct{}),
		ticks: make(chan time.Time), stop: make(chan os.Signal, 2), reload: make(chan os.Signal, 1), code: make(chan int, 1),
	}
	var reads atomic.Int32
	fsys.Fail(func(op memdisk.Op) error {
		// The log is read 256 KiB at a time. The start is held up at the second piece.
		if op.Kind == memdisk.Read && strings.HasSuffix(op.Name, "00000001.seg") && op.Len > 4096 {
			if reads.Add(1) == 2 {
				close(s.held)
				<-s.goOn
			}
		}
		return nil
	})
	c := Defaults()
	c.Listen, c.Data, c.Segment, c.Limits.Value = "127.0.0.1:0", "data", 1<<20, 64<<10
	log := slog.New(slog.NewTextHandler(s.log, nil))
	go func() {
		s.code <- serve(fsys, c, environment{
			log: log, stop: s.stop, reload: s.reload, ticks: s.ticks, config: func() (Config, error) { return c, nil },
			systemd: &supervisor{notifier: systemd.NewNotifier(func(string) string { return s.manager.name }), log: log},
		})
	}()
	s.manager.want("STATUS=reading the data directory")
	select {
	case <-s.held:
	case <-time.After(patience):
		t.Fatal("the start was not held up")
	}
	return s
}

// TestLongStartSaysHowFarItIs has a start that makes no progress. Only new progress is
// reported.
func TestLongStartSaysHowFarItIs(t *testing.T) {
	s := startSlowly(t)
	for range 3 {
		s.ticks <- time.Time{}
	}
	line := lineOf(t, s.log, "reading the data directory")
	m := regexp.MustCompile(`done="(\d+)% of [0-9.]+ MiB"`).FindStringSubmatch(line)
	if m == nil || m[1] == "0" || m[1] == "100" {
		t.Fatalf("the log says %s", line)
	}
	status := "STATUS=reading the data directory: " + m[1] + "% of "
	s.manager.want(status + "*")
	close(s.goOn)
	got := s.manager.next()
	// The last tick may come only when more is read.
	if strings.HasPrefix(got, "STATUS=") && !strings.HasPrefix(got, status) {
		got = s.manager.next()
	}
	if !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("systemd was told %q", got)
	}
	lineOf(t, s.log, "msg=listening")
	s.stop <- syscall.SIGTERM
	s.manager.want("STOPPING=1\n*")
	if c := soon(t, "the end", s.code); c != 0 {
		t.Errorf("exit %d", c)
	}
}

func TestSystemdGivesALongStartMoreTime(t *testing.T) {
	s := startSlowly(t)
	s.ticks <- time.Time{}
	if got := s.manager.next(); !strings.HasSuffix(got, "\nEXTEND_TIMEOUT_USEC=300000000") {
		t.Errorf("systemd was told %q", got)
	}
	close(s.goOn)
	s.stop <- syscall.SIGTERM
	soon(t, "the end", s.code)
}

// TestStopDoesNotWaitForALongStart ends the server while its start is held up.
func TestStopDoesNotWaitForALongStart(t *testing.T) {
	s := startSlowly(t)
	defer close(s.goOn)
	s.reload <- syscall.SIGHUP // nobody receives it
	s.stop <- syscall.SIGTERM
	if c := soon(t, "the end", s.code); c != exitOK {
		t.Errorf("exit %d, want %d", c, exitOK)
	}
	s.manager.want("STOPPING=1\nSTATUS=stopped before it was ready")
}

func TestReloadThatIsAskedForDuringAStartIsDoneAfterIt(t *testing.T) {
	s := startSlowly(t)
	s.reload <- syscall.SIGHUP
	close(s.goOn)
	s.manager.want("READY=1\n*")
	s.manager.want("RELOADING=1\n*")
	s.manager.want("READY=1")
	s.stop <- syscall.SIGTERM
	soon(t, "the end", s.code)
}

func TestProgressIsOneLineOfATerminal(t *testing.T) {
	var shown bytes.Buffer
	at := time.Unix(1000, 0)
	p := &progress{terminal: &shown, now: func() time.Time { return at }, began: at}
	want := func(text string) {
		t.Helper()
		if shown.String() != text {
			t.Errorf("shown: %q, want %q", shown.String(), text)
		}
		shown.Reset()
	}
	at = at.Add(time.Second)
	p.report(100<<20, 400<<20)
	want("\r25% of 400.0 MiB, 100.0 MiB/s")
	p.report(200<<20, 400<<20) // too soon
	want("")
	at = at.Add(9 * time.Second)
	p.report(350<<20, 400<<20)
	want("\r87% of 400.0 MiB, 35.0 MiB/s ")
	p.clear()
	want("\r" + strings.Repeat(" ", len("87% of 400.0 MiB, 35.0 MiB/s")) + "\r")
	p.clear()
	want("")
	at = at.Add(10 * time.Second)
	p.report(5<<20, 0)
	want("\r5.0 MiB, 0.2 MiB/s")
	at = at.Add(time.Second)
	p.report(401<<20, 400<<20)
	want("\r100% of 400.0 MiB, 19.1 MiB/s")
}

// TestLongCommandsShowProgressOnATerminalAlone runs them with and without a terminal.
func TestLongCommandsShowProgressOnATerminalAlone(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	dir := t.TempDir()
	file := filepath.Join(dir, "copy.tar")
	for i, args := range [][]string{
		{"backup", "-server", "http://" + p.addr, "-o", file},
		{"restore", "-data", filepath.Join(dir, "new"), file},
		{"verify", filepath.Join(dir, "new")},
	} {
		m := newTerminal(t)
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), "no_proxy=*", "CLOUDDRAGON_TOKEN=")
		cmd.Stderr = m.device
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if err := m.device.Close(); err != nil {
			t.Fatal(err)
		}
		seen, _ := io.ReadAll(m.user) // EIO is the end
		if !regexp.MustCompile(`^\r\d+% of [0-9.]+ MiB, [0-9.]+ MiB/s[^\n]*\r$`).Match(seen) {
			t.Errorf("%q: the terminal shows %q", args, seen)
		}
		if i == 1 {
			if err := os.RemoveAll(filepath.Join(dir, "new")); err != nil {
				t.Fatal(err)
			}
		}
		if _, errs, code := call(t, "", args...); code != 0 || errs != "" {
			t.Errorf("%q without a terminal: exit %d, stderr %q", args, code, errs)
		}
	}
}
