package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// environ makes an environment from alternating names and values.
func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// receiver listens at an address as systemd does.
func receiver(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the end of the test
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestMessageArrivesAtAPathAndAtAnAbstractName(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@clouddragon-test-" + strconv.Itoa(os.Getpid())} {
		c := receiver(t, name)
		n := NewNotifier(environ("NOTIFY_SOCKET", name))
		if err := n.Send("READY=1", Status("two\nlines  %d", 7)); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c); got != "READY=1\nSTATUS=two lines 7" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestMessageThatCannotBeSentIsAnError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "none"), file, dir, "relative", "vsock:2:1", "@" + strings.Repeat("x", 200), "/" + strings.Repeat("x", 200), "@clouddragon-nobody"} {
		if err := NewNotifier(environ("NOTIFY_SOCKET", name)).Send("READY=1"); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
	if err := NewNotifier(environ()).Send("READY=1"); err != nil {
		t.Errorf("without NOTIFY_SOCKET: %v", err)
	}
}

// TestMessageDoesNotWaitForEver fills the queue of a socket that nobody reads.
func TestMessageDoesNotWaitForEver(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	receiver(t, name)
	n := NewNotifier(environ("NOTIFY_SOCKET", name))
	for range 10_000 {
		if err := n.Send("READY=1"); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want a timeout", err)
			}
			return
		}
	}
	t.Error("10,000 messages that nobody read were sent")
}

func TestReloadTellsTheMonotonicClock(t *testing.T) {
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano() / 1000
	}
	before := now()
	got, err := Reloading()
	if err != nil || len(got) != 2 || got[0] != "RELOADING=1" {
		t.Fatalf("got %q, %v", got, err)
	}
	var usec int64
	if _, err := fmt.Sscanf(got[1], "MONOTONIC_USEC=%d", &usec); err != nil || usec < before || usec > now() {
		t.Errorf("got %q, %v; want %d or a little more", got[1], err, before)
	}
}

func TestExtension(t *testing.T) {
	if got := ExtendTimeout(90 * time.Second); got != "EXTEND_TIMEOUT_USEC=90000000" {
		t.Errorf("got %q", got)
	}
}

func TestWatchdogIsForThisProcessAlone(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		ok        bool
	}{
		{"", "", 0, true},
		{"", "7", 0, true},
		{"2000000", "7", 2 * time.Second, true},
		{"2000000", "", 2 * time.Second, true},
		{"2000000", "8", 0, true},
		{"2000000", "x", 0, true},
		{"0", "7", 0, false},
		{"-1", "7", 0, false},
		{"x", "7", 0, false},
		{"18446744073709551615", "7", 0, false},
		{"9223372036854775807", "7", 0, false},
	} {
		got, err := Watchdog(environ("WATCHDOG_USEC", c.usec, "WATCHDOG_PID", c.pid), 7)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%+v: got %v, %v", c, got, err)
		}
	}
}

// passedOn returns a duplicate of the descriptor of l, as a process that systemd
// starts has it.
func passedOn(t *testing.T, l interface{ File() (*os.File, error) }) int {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // the duplicate stays
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestSocketIsTakenFromSystemd(t *testing.T) {
	outer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fd := passedOn(t, outer.(*net.TCPListener))
	l, err := listener(environ("LISTEN_FDS", "1", "LISTEN_PID", "7"), 7, fd)
	if err != nil {
		t.Fatal(err)
	}
	if l.Addr().String() != outer.Addr().String() {
		t.Errorf("the address is %v, want %v", l.Addr(), outer.Addr())
	}
	if err := unix.Close(fd); err != unix.EBADF {
		t.Errorf("the descriptor that was passed on is still open (%v): a child would inherit it", err)
	}
	if err := outer.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{c, accepted, l} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketsOfAnotherProcessOrTooManyAreNotTaken(t *testing.T) {
	const noFd = 1 << 20 // nothing is open there
	for _, env := range [][]string{{}, {"LISTEN_FDS", "1"}, {"LISTEN_FDS", "1", "LISTEN_PID", "8"}, {"LISTEN_PID", "7"}} {
		if l, err := listener(environ(env...), 7, noFd); l != nil || err != nil {
			t.Errorf("%q: got %v, %v; want none", env, l, err)
		}
	}
	for _, count := range []string{"2", "0", "x", "-1"} {
		if l, err := listener(environ("LISTEN_FDS", count, "LISTEN_PID", "7"), 7, noFd); err == nil || !strings.Contains(err.Error(), "want one socket") {
			t.Errorf("LISTEN_FDS=%s: got %v, %v", count, l, err)
		}
	}
	if l, err := listener(environ("LISTEN_FDS", "1", "LISTEN_PID", "7"), 7, noFd); err == nil {
		t.Errorf("a descriptor that is not open: got %v", l)
	}
	// A datagram socket, to which nobody can connect.
	c := receiver(t, filepath.Join(t.TempDir(), "s"))
	if l, err := listener(environ("LISTEN_FDS", "1", "LISTEN_PID", "7"), 7, passedOn(t, c)); err == nil {
		t.Errorf("a datagram socket: got %v", l)
	}
}
