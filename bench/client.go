package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long anything may take that is not measured for a time: what
// hangs is an error.
const patience = time.Minute

// client is one connection, for what wrk cannot do: fill, check, wait for a
// lock. It belongs to one goroutine.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func dial(addr string) (*client, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c), bufio.NewWriter(c)}, nil
}

// answer is what a server said.
type answer struct {
	status  int
	version string // the header Version
	body    []byte
}

func (a answer) ok() bool { return a.status/100 == 2 }

// send puts a request into the connection's buffer.
func (c *client) send(method, path, body string) {
	// An error of the buffer stays in it and comes out of Flush.
	fmt.Fprintf(c.w, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", method, path, len(body))
	c.w.WriteString(body)
}

// flush sends what is in the buffer, and sets the time by which all of it is to
// be answered.
func (c *client) flush() error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return c.w.Flush()
}

// receive reads the answer to the oldest request that has none.
func (c *client) receive() (answer, error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Version"), body}, err
}

// ask sends a request and reads the answer.
func (c *client) ask(method, path, body string) (answer, error) {
	c.send(method, path, body)
	if err := c.flush(); err != nil {
		return answer{}, err
	}
	return c.receive()
}

func (c *client) close() { c.conn.Close() } // nothing is on its way that matters

// ask opens a connection for one request.
func ask(addr, method, path, body string) (answer, error) {
	c, err := dial(addr)
	if err != nil {
		return answer{}, err
	}
	defer c.close()
	return c.ask(method, path, body)
}

// pipelined is how many requests of forEach are on their way on a connection.
const pipelined = 32

// forEach asks for the path of each id from 1 to n, over conns connections,
// many requests at once on each. got is called from many goroutines; its first
// error ends it all.
func forEach(ctx context.Context, addr string, conns, n int, method string, path func(int) string, body string, got func(id int, a answer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64 // the last id that somebody has taken
	var all sync.WaitGroup
	for range conns {
		all.Go(func() {
			c, err := dial(addr)
			if err != nil {
				cancel(err)
				return
			}
			defer c.close()
			defer context.AfterFunc(ctx, c.close)()
			for {
				last := int(next.Add(pipelined))
				first := last - pipelined + 1
				last = min(last, n)
				if first > n {
					return
				}
				if err := c.batch(first, last, method, path, body, got); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (c *client) batch(first, last int, method string, path func(int) string, body string, got func(id int, a answer) error) error {
	for id := first; id <= last; id++ {
		c.send(method, path(id), body)
	}
	if err := c.flush(); err != nil {
		return err
	}
	for id := first; id <= last; id++ {
		a, err := c.receive()
		if err == nil {
			err = got(id, a)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path(id), err)
		}
	}
	return nil
}

// refusal is an answer that is not the one wanted.
func refusal(a answer) error {
	return fmt.Errorf("%d: %s", a.status, strings.TrimSpace(string(a.body)))
}
