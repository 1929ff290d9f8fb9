package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seen is a server that records its requests.
type seen struct {
	mu      sync.Mutex
	asked   map[string]int // by method, path and size of the body
	clients map[string]bool
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	s.asked[fmt.Sprintf("%s %s %d", r.Method, r.URL.RequestURI(), n)]++
	s.clients[r.RemoteAddr] = true
	s.mu.Unlock()
	emptyHandler(w, r)
}

func TestGeneratorAsksOnceForEachID(t *testing.T) {
	for _, c := range []struct {
		crowd
		clients int
	}{
		{crowd{conns: 3}, 3},
		{crowd{conns: 3, depth: 4}, 3},
		{crowd{conns: 2, fresh: true}, 10},
		{crowd{conns: 2, rate: 10_000}, 2},
	} {
		s := &seen{asked: map[string]int{}, clients: map[string]bool{}}
		server := httptest.NewServer(s)
		c.work, c.n, c.id = work{"http": overHTTP("POST /db/a/kv/<any-id>\n\n" + value)}, 10, inTurn
		g, err := newGenerator(server.Listener.Addr().String(), "http", &c.crowd)
		if err == nil {
			_, err = g.run(t.Context(), 0)
			g.close()
		}
		server.Close() // only then may s be read
		if err != nil {
			t.Fatal(err)
		}
		for id := 1; id <= 10; id++ {
			if n := s.asked[fmt.Sprintf("POST /db/a/kv/%08d 64", id)]; n != 1 {
				t.Errorf("%+v: id %d was requested %d times", c.crowd, id, n)
			}
		}
		if len(c.took) != 10 || len(s.asked) != 10 || len(s.clients) != c.clients {
			t.Errorf("%d answers to %d requests over %d connections, want 10, 10 and %d", len(c.took), len(s.asked), len(s.clients), c.clients)
		}
	}
}

func TestPairLocksAndUnlocksItsOwnID(t *testing.T) {
	s := &seen{asked: map[string]int{}, clients: map[string]bool{}}
	server := httptest.NewServer(s)
	c := &crowd{work: locks("<client>", "bench", ""), conns: 1, n: 4}
	_, err := runFor(t.Context(), server, c)
	server.Close()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.asked) != 2 || s.asked["POST /db/locks/lock/00000000?id=bench&dur=60 0"] != 2 || s.asked["DELETE /db/locks/lock/00000000?id=bench 0"] != 2 {
		t.Errorf("a pair asks for %v", s.asked)
	}
}

func runFor(ctx context.Context, s *httptest.Server, crowds ...*crowd) (time.Duration, error) {
	g, err := newGenerator(s.Listener.Addr().String(), "http", crowds...)
	if err != nil {
		return 0, err
	}
	defer g.close()
	return g.run(ctx, time.Millisecond)
}

// For a client that waits for each answer, a stall of the server is one slow answer. At a
// constant rate all requests that were due during the stall count as slow.
func TestStallCountsForAllRequestsDueMeanwhile(t *testing.T) {
	const rate, n = 1000, 100
	var stalled sync.Once
	var passed atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stalled.Do(func() { passed.Add(int64(2 * n * time.Second / rate)) }) // the other connections wait for it
		emptyHandler(w, r)
	}))
	defer server.Close()
	c := &crowd{work: many, conns: 4, id: inTurn, n: n, rate: rate}
	g, err := newGenerator(server.Listener.Addr().String(), "http", c)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	g.clock = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	if _, err := g.run(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	slow := 0
	for _, took := range c.took {
		if took >= n*1e6/rate {
			slow++
		}
	}
	if slow != n {
		t.Errorf("%d of %d answers are as slow as the stall", slow, n)
	}
}

func TestGeneratorFailsWithTheServer(t *testing.T) {
	refuses := httptest.NewServer(http.NotFoundHandler())
	defer refuses.Close()
	hangsUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()
	for server, want := range map[*httptest.Server]string{refuses: "a refusal", hangsUp: "EOF"} {
		_, err := runFor(t.Context(), server, &crowd{work: one, conns: 2, n: 100, id: inTurn})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestGeneratorSpeaksRESP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return // the test says so
		}
		defer c.Close()
		var words []string
		for s := bufio.NewScanner(c); len(words) < 7 && s.Scan(); {
			words = append(words, s.Text())
		}
		asked <- strings.Join(words, " ")
		fmt.Fprint(c, "+OK\r\n")
	}()
	g, err := newGenerator(l.Addr().String(), "resp", &crowd{work: work{"resp": overRESP("SET", "key:<any-id>", "vvv")}, conns: 1, n: 1, id: func(int) int { return 1234 }})
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if _, err := g.run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got, want := <-asked, "*3 $3 SET $12 key:00001234 $3 vvv"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnswersAreReadToTheirEnd(t *testing.T) {
	const http200 = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct {
		answer func([]byte) (int, error)
		text   string
		size   int
		bad    bool
	}{
		{httpAnswer, http200 + "1\nHTTP", len(http200) + 2, false},
		{httpAnswer, http200 + "1", 0, false},
		{httpAnswer, http200[:len(http200)-1], 0, false},
		{httpAnswer, "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 33, false},
		{httpAnswer, "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno", 0, true},
		{httpAnswer, "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", 0, true},
		{httpAnswer, chunked + "2\r\n{}\r\n0\r\n\r\nHTTP", len(chunked) + 12, false},
		{httpAnswer, chunked + "2\r\n{}\r\n", 0, false},
		{respAnswer, ":1234\r\n:5", 7, false},
		{respAnswer, ":1234\r", 0, false},
		{respAnswer, "+OK\r\n", 5, false},
		{respAnswer, "$3\r\nvv", 0, false},
		{respAnswer, "$3\r\nvvv\r\n", 9, false},
		{respAnswer, "$-1\r\n", 0, true},
		{respAnswer, "-ERR no\r\n", 0, true},
		{respAnswer, "\r\n", 0, true},
	} {
		size, err := c.answer([]byte(c.text))
		if size != c.size || (err != nil) != c.bad {
			t.Errorf("%q: got %d, %v; want %d, an error %v", c.text, size, err, c.size, c.bad)
		}
	}
}
