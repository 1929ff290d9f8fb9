package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/systemd"
)

// manager receives the messages of a server to systemd.
type manager struct {
	t    *testing.T
	name string // of the socket
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the end of the test
	return &manager{t, name, c}
}

func (m *manager) environment() string { return "NOTIFY_SOCKET=" + m.name }

// next returns the next message.
func (m *manager) next() string {
	m.t.Helper()
	b := make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	n, err := m.conn.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

// want compares the next message. A * at the end stands for the rest of it.
func (m *manager) want(message string) {
	m.t.Helper()
	got := m.next()
	if start, cut := strings.CutSuffix(message, "*"); got != message && !(cut && strings.HasPrefix(got, start)) {
		m.t.Errorf("systemd was told %q, want %q", got, message)
	}
}

func TestSystemdIsToldOfStartReloadAndStop(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := start(t, small(t, "listen: 127.0.0.1:0\n"), m.environment())
	m.want("STATUS=reading the data directory")
	m.want("READY=1\nSTATUS=serving on " + p.addr)
	p.signal(syscall.SIGHUP)
	m.want("RELOADING=1\nMONOTONIC_USEC=*")
	p.line("msg=reloaded")
	m.want("READY=1")
	p.configure("bogus: 1\n")
	p.signal(syscall.SIGHUP)
	m.want("RELOADING=1\nMONOTONIC_USEC=*")
	p.line("not reloaded")
	m.want("READY=1")
	p.stop()
	m.want("STOPPING=1\nSTATUS=stopping")
}

func TestSystemdIsToldWhyAStartFailed(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	first := start(t, small(t, "listen: 127.0.0.1:0\n"))
	second := launch(t, small(t, "listen: "+first.addr+"\n"), m.environment())
	m.want("STATUS=reading the data directory")
	m.want("STATUS=cannot listen: *")
	second.exit()
	dir := strings.Fields(strings.TrimPrefix(readFile(t, first.config), "data: "))[0]
	third := launch(t, "listen: 127.0.0.1:0\ndata: "+dir+"\n", m.environment())
	m.want("STATUS=reading the data directory")
	m.want("STATUS=cannot open the data directory: *")
	third.exit()
	fourth := launch(t, "nonsense: 1\n", m.environment())
	m.want("STATUS=bad configuration: *")
	fourth.exit()
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestServerGoesOnWithoutSystemd sets names of sockets at which nobody listens.
func TestServerGoesOnWithoutSystemd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "/nowhere/notify", "relative", "@nobody-" + strconv.Itoa(os.Getpid()), "vsock:2:1"} {
		p := start(t, small(t, "listen: 127.0.0.1:0\n"), "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=2000")
		p.signal(syscall.SIGHUP)
		p.line("msg=reloaded")
		want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
		p.stop()
		if n := strings.Count(p.log, "cannot tell systemd"); n != 1 {
			t.Errorf("%s: the log says so %d times, want once:\n%s", name, n, p.log)
		}
	}
}

func TestWatchdogHearsFromTheServer(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := start(t, small(t, "listen: 127.0.0.1:0\n"), m.environment(), "WATCHDOG_USEC=20000")
	m.want("STATUS=reading the data directory")
	m.want("READY=1\n*")
	for range 3 {
		m.want("WATCHDOG=1")
	}
	p.signal(syscall.SIGTERM)
	for m.next() == "WATCHDOG=1" {
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestWatchdogOfAnotherProcessOrWithAFaultIsNone starts a server whose only messages
// are those of a start and a stop.
func TestWatchdogOfAnotherProcessOrWithAFaultIsNone(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{{"WATCHDOG_USEC=1", "WATCHDOG_PID=1"}, {"WATCHDOG_USEC=x"}} {
		m := newManager(t)
		p := start(t, small(t, "listen: 127.0.0.1:0\n"), append(env, m.environment())...)
		p.stop()
		m.want("STATUS=reading the data directory")
		m.want("READY=1\n*")
		m.want("STOPPING=1\n*")
	}
}

// TestWatchdogHearsNothingOfAStuckWriter shows the guard the state of the writer, one tick at
// a time.
func TestWatchdogHearsNothingOfAStuckWriter(t *testing.T) {
	m := newManager(t)
	s := &supervisor{
		notifier: systemd.NewNotifier(func(string) string { return m.name }),
		log:      slog.New(slog.DiscardHandler),
	}
	stuck := commit.Pulse{Steps: 7, Busy: true}
	at, done := make(chan commit.Pulse), make(chan struct{})
	disk := false
	go func() {
		ticks := make(chan time.Time)
		go s.guard(ticks, func() commit.Pulse { return <-at }, func() bool { return disk })
		for {
			ticks <- time.Time{} // received once the guard is done with the previous tick
			done <- struct{}{}
		}
	}()
	<-done
	for _, c := range []struct {
		what  string
		pulse commit.Pulse
		disk  bool
		told  bool
	}{
		{"the first tick", stuck, false, true},
		{"no step since", stuck, false, false},
		{"still none", stuck, false, false},
		{"a thread waits for the disk", stuck, true, true},
		{"it goes on", commit.Pulse{Steps: 8, Busy: true}, false, true},
		{"a batch is written", commit.Pulse{Steps: 9, Busy: true, OnDisk: true}, false, true},
		{"it takes long", commit.Pulse{Steps: 9, Busy: true, OnDisk: true}, false, true},
		{"it is written", commit.Pulse{Steps: 10, Busy: true}, false, true},
		{"idle", commit.Pulse{Steps: 10}, false, true},
		{"idle still", commit.Pulse{Steps: 10}, false, true},
		{"a new batch", commit.Pulse{Steps: 10, Busy: true}, false, true},
		{"a batch that nobody begins", commit.Pulse{Steps: 10, Busy: true}, false, false},
	} {
		disk = c.disk
		at <- c.pulse
		<-done
		if err := s.notifier.Send("that is all"); err != nil {
			t.Fatal(err)
		}
		if c.told {
			m.want("WATCHDOG=1")
		}
		if got := m.next(); got != "that is all" {
			t.Errorf("%s: systemd was told %q", c.what, got)
		}
	}
}

func TestThreadThatWaitsForTheDiskIsFound(t *testing.T) {
	if waitsForDisk() {
		t.Log("a thread of this test waits for the disk just now")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join(dir, "1", "stat")
	for text, want := range map[string]bool{
		"1 (clouddragon) S 0 1": false,
		"1 (clouddragon) D 0 1": true,
		"1 (a) D b) S 0 1":      false,
		"1 (a) S b) D 0 1":      true,
		"":                      false,
	} {
		if err := os.WriteFile(stat, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := anyUninterruptible(dir); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	if anyUninterruptible(filepath.Join(dir, "none")) {
		t.Error("found in a directory that is not there")
	}
}

// passSocket passes l to the program as systemd passes sockets. The environment says that
// there are count of them.
func (p *process) passSocket(l net.Listener, count int) {
	p.t.Helper()
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = f.Close() }) // the program has a duplicate
	args := append([]string{"-c", fmt.Sprintf(`LISTEN_FDS=%d LISTEN_PID=$$ exec "$0" "$@"`, count)}, p.cmd.Args...)
	p.cmd.Path, p.cmd.Args = "/bin/sh", append([]string{"sh"}, args...)
	p.cmd.ExtraFiles = []*os.File{f}
}

// logged runs a prepared program and follows its log.
func (p *process) logged() {
	p.t.Helper()
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.run()
	p.follow(stderr)
}

// TestSocketOfSystemdIsServed connects before the server is started, and between two runs.
func TestSocketOfSystemdIsServed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	config := small(t, "listen: 127.0.0.1:1\n") // not bound
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		for run := range 2 {
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			p := prepare(t, config)
			p.passSocket(l, 1)
			p.logged()
			p.serves()
			answer, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nok\n") || p.addr != bound(l) {
				t.Errorf("run %d on %s: answered %q, %v", run, p.addr, answer, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			p.stop()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketOfSystemdNeedsATokenToBePublic(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the end of the test
	config := small(t, "listen: 127.0.0.1:0\n")
	for _, c := range []struct {
		count int
		env   string
		code  int
		says  string
	}{
		{1, "CLOUDDRAGON_TOKEN=", exitConfig, "no token is set"},
		{2, "CLOUDDRAGON_TOKEN=", exitFailed, "want one socket"},
	} {
		p := prepare(t, config, c.env)
		p.passSocket(l, c.count)
		p.logged()
		if code := p.exit(); code != c.code || !strings.Contains(p.log, c.says) {
			t.Errorf("%d sockets: exit %d, want %d and %q; it said:\n%s", c.count, code, c.code, c.says, p.log)
		}
	}
	p := prepare(t, config, "CLOUDDRAGON_TOKEN=t")
	p.passSocket(l, 1)
	p.logged()
	p.serves()
	p.stop()
}
