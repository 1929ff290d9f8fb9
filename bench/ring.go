package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// queuing is how long the last holder of a lock gets to queue again before the
// next hand-over.
const queuing = time.Millisecond

// handOver measures the time from an unlock sent to the next client's grant
// received, of one lock with so many waiters.
func handOver(api string, waiters int) *row {
	name := "mutex hand-over"
	unlock := "POST /db/ring/munlock/"
	if api == "lock" {
		name, unlock = "lock hand-over", "DELETE /db/ring/lock/"
	}
	figures := []figure{{"p50 µs", true}, {"p99 µs", true}}
	return &row{fmt.Sprintf("%s, waiters: %s", name, thousands(strconv.Itoa(waiters))), waiters + 1, figures, map[string]bool{"http": true}, func(ctx context.Context, b *bench, t *target) (measured, error) {
		if t.name == empty {
			return measured{}, errCannot
		}
		id := fmt.Sprintf("%d-%d", waiters, b.report.rounds) // the lock of the round before may be held still
		r := &ring{addr: t.addr, api: api, lock: fmt.Sprintf("POST /db/ring/%s/%s?dur=600&wait=600", api, id),
			unlock: unlock + id, grants: make(chan grant), fails: make(chan error, waiters+1)}
		took, err := r.measure(ctx, waiters, b.seconds)
		return measured{figures: []float64{micros(percentile(took, 50)), micros(percentile(took, 99))}}, err
	}}
}

// errCannot says that a target does not do the work of a row.
var errCannot = errors.New("this server has no such work")

// ring is a lock that is handed around.
type ring struct {
	addr, api, lock, unlock string
	grants                  chan grant
	fails                   chan error
}

type grant struct {
	token int64
	at    time.Time
	again chan<- struct{} // sends the client back into the queue
}

func (r *ring) measure(ctx context.Context, waiters int, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+d)
	defer cancel()
	for range waiters + 1 {
		c, err := dial(ctx, r.addr)
		if err != nil {
			return nil, err
		}
		go r.client(ctx, c)
	}
	control, err := dial(ctx, r.addr)
	if err != nil {
		return nil, err
	}
	defer control.close()
	g, err := r.next(ctx)
	if err != nil {
		return nil, err
	}
	for queued := fmt.Sprintf("\nclouddragon_lock_waiters{api=%q} %d\n", r.api, waiters); ; time.Sleep(queuing) {
		text, err := control.ask("GET /metrics")
		if err != nil {
			return nil, err
		}
		if strings.Contains(text, queued) {
			break
		}
	}
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end) || len(took) == 0; {
		last := g
		began := time.Now()
		if _, err := control.ask(fmt.Sprintf("%s?token=%d", r.unlock, last.token)); err != nil {
			return nil, err
		}
		if g, err = r.next(ctx); err != nil {
			return nil, err
		}
		if g.token <= last.token {
			return nil, fmt.Errorf("%s: token %d was granted after %d", r.lock, g.token, last.token)
		}
		took = append(took, g.at.Sub(began))
		last.again <- struct{}{}
		time.Sleep(queuing)
	}
	return took, nil
}

func (r *ring) next(ctx context.Context) (grant, error) {
	select {
	case g := <-r.grants:
		return g, nil
	case err := <-r.fails:
		return grant{}, err
	case <-ctx.Done():
		return grant{}, fmt.Errorf("%s: nobody is granted the lock: %w", r.lock, context.Cause(ctx))
	}
}

// client asks for the lock again and again.
func (r *ring) client(ctx context.Context, c *client) {
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	again := make(chan struct{})
	for ctx.Err() == nil {
		text, err := c.ask(r.lock)
		now := time.Now()
		var token int64
		if err == nil {
			token, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		}
		if err != nil {
			r.fails <- err // has room for every client's
			return
		}
		select {
		case r.grants <- grant{token, now, again}:
		case <-ctx.Done():
			return
		}
		select {
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// client is a connection that one goroutine uses.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(ctx context.Context, addr string) (*client, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 512)}, nil
}

func (c *client) close() { c.conn.Close() } // nothing that matters is under way

// ask sends "METHOD PATH" and returns the body of the answer.
func (c *client) ask(call string) (string, error) {
	if _, err := fmt.Fprintf(c.conn, "%s HTTP/1.1\r\nHost: localhost\r\n\r\n", call); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %d: %s", call, answer.StatusCode, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
