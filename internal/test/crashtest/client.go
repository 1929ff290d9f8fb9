package crashtest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// client is one connection that sends one request after the other. It never
// repeats a request, as net/http's may, because the ledger has to know every attempt.
type client struct {
	addr string
	most time.Duration // that a call may take; 0: patience
	conn net.Conn
	in   *bufio.Reader
}

// credentials are lines of the header that every call has.
var credentials string

// errNotSent is returned for a call that no server can have seen.
var errNotSent = errors.New("no connection")

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %q", a.status, a.body) }

// number returns the bare value of an answer.
func (a answer) number() (int64, error) {
	return strconv.ParseInt(strings.TrimSuffix(a.body, "\n"), 10, 64)
}

// unknown reports whether the call may have been done or not.
func (a answer) unknown() bool {
	return a.status == http.StatusServiceUnavailable && strings.Contains(a.body, "outcome is unknown")
}

// do sends a request and returns the answer. After an error the call may have
// been done or not, and the next one opens a new connection.
func (c *client) do(method, target, body string) (answer, error) {
	return c.doWith(method, target, "", body)
}

// doWith is do with further lines of the header, each with its line break.
func (c *client) doWith(method, target, header, body string) (answer, error) {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, cmp.Or(c.most, patience))
		if err != nil {
			return answer{}, fmt.Errorf("%w: %w", errNotSent, err)
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	a, err := c.exchange(method, target, header, body)
	if err != nil || a.header.Get("Connection") == "close" {
		c.close()
	}
	return a, err
}

func (c *client) exchange(method, target, header, body string) (answer, error) {
	if err := c.conn.SetDeadline(time.Now().Add(cmp.Or(c.most, patience))); err != nil {
		return answer{}, err
	}
	request := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + credentials + header
	if body != "" || method == "PUT" {
		request += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	if _, err := io.WriteString(c.conn, request+"\r\n"+body); err != nil {
		return answer{}, err
	}
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{}, err
	}
	h := r.Header
	if r.Close {
		h.Set("Connection", "close")
	}
	return answer{r.StatusCode, h, string(b)}, r.Body.Close()
}

func (c *client) close() {
	if c.conn == nil {
		return
	}
	closed(c.conn)
	c.conn = nil
}

// closed closes a connection, which may be closed already. Nothing else makes it
// fail, so anything else is a fault of the test's own.
func closed(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err)
	}
}

// gauge reads a whole number from /metrics.
func gauge(c *client, name string) (int, error) {
	a, err := c.do("GET", "/metrics", "")
	if err != nil {
		return 0, err
	}
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(a.body)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(rest, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("no %s in /metrics", name)
}
