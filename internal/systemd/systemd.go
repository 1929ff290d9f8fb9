// Package systemd is what a service tells systemd, and what it gets from it, as
// sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3) describe it.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sendTime is how long a message may wait until systemd has read others. A stop, which
// has 10 seconds, begins with one.
const sendTime = 500 * time.Millisecond

// Notifier tells systemd how the service does.
type Notifier struct {
	socket string // empty: systemd does not listen
}

// NewNotifier reads the environment.
func NewNotifier(getenv func(string) string) *Notifier {
	return &Notifier{getenv("NOTIFY_SOCKET")}
}

// Send sends assignments, such as "READY=1", as one message. If systemd does not
// listen it does nothing.
func (n *Notifier) Send(assignments ...string) (err error) {
	if n.socket == "" {
		return nil
	}
	if n.socket[0] != '/' && n.socket[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET is %q: want a path, or a name that begins with @", n.socket)
	}
	// A socket for each message: systemd may have been started anew.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: n.socket})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err = c.Write([]byte(strings.Join(assignments, "\n")))
	return err
}

// Status is the assignment of a text that `systemctl status` shows.
func Status(format string, args ...any) string {
	return "STATUS=" + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
}

// Reloading are the assignments that say that a reload begins now.
func Reloading() ([]string, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, err
	}
	return []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}, nil
}

// ExtendTimeout is the assignment that lets a start or a stop take so much longer,
// from now on.
func ExtendTimeout(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

// Watchdog returns how often systemd wants to hear from the process at least; 0: it
// has no watchdog for it.
func Watchdog(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if text == "" {
		return 0, nil
	}
	if of := getenv("WATCHDOG_PID"); of != "" && of != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q: want a number of microseconds", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// firstSocket is the descriptor of the first socket that systemd passes on.
const firstSocket = 3

// Listener returns the socket that systemd listens at for the process, or nil if
// there is none.
func Listener(getenv func(string) string, pid int) (net.Listener, error) {
	return listener(getenv, pid, firstSocket)
}

func listener(getenv func(string) string, pid, fd int) (net.Listener, error) {
	count := getenv("LISTEN_FDS")
	if count == "" || getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	if count != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %q: want one socket, with one ListenStream= in the socket unit", count)
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, errors.Join(errors.New("the descriptor of LISTEN_FDS is no socket that listens: use ListenStream= in the socket unit"), err)
	}
	f := os.NewFile(uintptr(fd), "LISTEN_FDS")
	l, err := net.FileListener(f) // of a duplicate that no child inherits
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("the socket of LISTEN_FDS: %w", err)
	}
	return l, nil
}
