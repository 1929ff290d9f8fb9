package crashtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// vitals are what a server must not lose to its clients.
type vitals struct {
	files      int
	goroutines int
	memory     int // the most that was resident, in bytes
}

var (
	goroutinesPattern = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)
	memoryPattern     = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)
)

// vitals asks over a connection of its own, which is counted too.
func (s *server) vitals() (vitals, error) {
	c := client{addr: s.addr}
	defer c.close()
	a, err := c.do("GET", "/metrics", "")
	if err != nil {
		return vitals{}, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		return vitals{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return vitals{}, err
	}
	g, m := goroutinesPattern.FindStringSubmatch(a.body), memoryPattern.FindSubmatch(status)
	if g == nil || m == nil {
		return vitals{}, fmt.Errorf("no vitals in /metrics: %v", a)
	}
	goroutines, err := strconv.Atoi(g[1])
	if err != nil {
		return vitals{}, err
	}
	kib, err := strconv.Atoi(string(m[1]))
	return vitals{len(files), goroutines, kib << 10}, err
}

// raw is a connection on which anything can be sent. It ends by itself after patience; whoever
// keeps it for longer calls wait.
type raw struct {
	net.Conn
	in *bufio.Reader
}

func dialRaw(addr string) (raw, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return raw{}, err
	}
	r := raw{c, bufio.NewReader(c)}
	return r, r.wait()
}

// wait lets the connection last for patience from now on.
func (c raw) wait() error { return c.SetDeadline(time.Now().Add(patience)) }

// rest returns all that comes until the server closes.
func (c raw) rest() ([]byte, error) {
	if err := c.wait(); err != nil {
		return nil, err
	}
	return io.ReadAll(c.in)
}

// say sends, ends the sending half if end is set, and returns all that comes
// back until the server closes. That the server does not take it all is no error.
func say(addr, text string, end bool) (string, error) {
	c, err := dialRaw(addr)
	if err != nil {
		return "", err
	}
	said := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, text)
		if err == nil && end {
			err = c.Conn.(*net.TCPConn).CloseWrite()
		}
		said <- err
	}()
	b, err := io.ReadAll(c)
	closed(c) // ends the sending too
	for _, err := range []error{err, <-said} {
		if err != nil && !gaveUp(err) {
			return string(b), err
		}
	}
	return string(b), nil
}

// gaveUp reports whether an error only means that one end has closed the connection.
func gaveUp(err error) bool {
	return slices.ContainsFunc([]error{syscall.ECONNRESET, syscall.EPIPE, syscall.ENOTCONN, net.ErrClosed},
		func(e error) bool { return errors.Is(err, e) })
}

var statusPattern = regexp.MustCompile(`(?m)^HTTP/1\.[01] (\d\d\d)`)

// statuses are those of all answers in what came back.
func statuses(text string) []int {
	var all []int
	for _, m := range statusPattern.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err == nil {
			all = append(all, n)
		}
	}
	return all
}

// serverError returns a status of 500 or more, which no client may get. Excepted are
// 501 and 505, net/http's answers to an unknown transfer coding or version.
func serverError(text string) error {
	for _, n := range statuses(text) {
		if n >= 500 && n != 501 && n != 505 {
			return fmt.Errorf("status %d: %s", n, brief(text))
		}
	}
	return nil
}

// crowdOf opens n connections, sends text on each, and keeps them open.
func crowdOf(addr string, n int, text func(i int) string) ([]raw, error) {
	var open []raw
	for i := range n {
		c, err := dialRaw(addr)
		if err != nil {
			return open, fmt.Errorf("connection %d: %w", i, err)
		}
		open = append(open, c)
		if _, err := io.WriteString(c, text(i)); err != nil {
			return open, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return open, nil
}

func hangUp(open []raw) {
	for _, c := range open {
		closed(c)
	}
}
