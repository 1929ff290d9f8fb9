package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func byNumber(i int) int { return i + 1 }

func TestGeneratorAsksOnceForEachID(t *testing.T) {
	for _, value := range []int{1, 64, joined + 1, 8 << 20} {
		s := &seen{sizes: map[int]bool{}}
		server := httptest.NewServer(s)
		r := &row{method: "POST", acc: "a", api: "kv", value: value}
		l, err := loadWith(context.Background(), server.Listener.Addr().String(), 3, overHTTP(r), pace{n: 10}, byNumber)
		server.Close() // what it has seen is read once it has ended
		if err != nil {
			t.Fatalf("%d bytes: %v", value, err)
		}
		count := map[string]int{}
		for _, a := range s.asked {
			count[a]++
		}
		for id := 1; id <= 10; id++ {
			if count["POST "+r.path(id)] != 1 {
				t.Errorf("%s was asked for %d times", r.path(id), count["POST "+r.path(id)])
			}
		}
		if l.answers != 10 || len(s.asked) != 10 || len(s.sizes) != 1 || !s.sizes[value] {
			t.Errorf("%d bytes: %d answers to %d requests of sizes %v, want 10", value, l.answers, len(s.asked), s.sizes)
		}
	}
}

// One stall of the server is one slow answer for a client that waits, and many
// for one that does not: that is what a constant rate is for.
func TestAStallCountsForAllThatWasDueMeanwhile(t *testing.T) {
	const stall, d = 100 * time.Millisecond, 200 * time.Millisecond
	var once sync.Once
	var passed atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { passed.Add(int64(stall)) }) // the others wait for it
		emptyHandler(w, r)
	}))
	defer server.Close()
	g, err := newGenerator(server.Listener.Addr().String(), 4, overHTTP(rows(1)[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	g.clock = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	l, err := g.run(context.Background(), pace{rate: 1000, d: d}, byNumber)
	if err != nil {
		t.Fatal(err)
	}
	if l.answers != 200 {
		t.Errorf("%d answers, want 200", l.answers)
	}
	slow := 0
	for _, took := range g.took {
		if took >= stall/2 {
			slow++
		}
	}
	if slow < 50 { // what was due in the first half of the stall was answered after all of it
		t.Errorf("%d answers took %v or more, want 50 at least", slow, stall/2)
	}
}

func TestGeneratorReadsValuesOfAnySize(t *testing.T) {
	body := strings.Repeat("v", 3*readOnce)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	r := &row{method: "GET", acc: "a", api: "kv", value: len(body)}
	l, err := loadWith(context.Background(), server.Listener.Addr().String(), 2, overHTTP(r), pace{n: 6}, byNumber)
	if err != nil || l.answers != 6 {
		t.Errorf("%d answers, %v; want 6", l.answers, err)
	}
}

func TestGeneratorFailsWithTheServer(t *testing.T) {
	refuses := httptest.NewServer(http.NotFoundHandler())
	defer refuses.Close()
	hangsUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()
	for server, want := range map[*httptest.Server]string{refuses: "a refusal", hangsUp: "EOF"} {
		_, err := loadWith(context.Background(), server.Listener.Addr().String(), 2, overHTTP(rows(1)[0]), pace{n: 100}, byNumber)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestGeneratorSpeaksRedis(t *testing.T) {
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
	r := &row{method: "POST", value: 3}
	if _, err := loadWith(context.Background(), l.Addr().String(), 1, overRedis(r), pace{n: 1}, byNumber); err != nil {
		t.Fatal(err)
	}
	if got, want := <-asked, "*3 $3 SET $16 key:000000000001 $3 vvv"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnswersAreReadToTheirEnd(t *testing.T) {
	const http200 = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
	for _, c := range []struct {
		answer     func([]byte) (int, int, error)
		text       string
		head, body int
		bad        bool
	}{
		{httpAnswer, http200 + "1\n", len(http200), 2, false},
		{httpAnswer, http200[:len(http200)-1], 0, 0, false},
		{httpAnswer, "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 33, 0, false},
		{httpAnswer, "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno", 0, 0, true},
		{httpAnswer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, true},
		{redisAnswer, ":1234\r\n", 7, 0, false},
		{redisAnswer, ":1234\r", 0, 0, false},
		{redisAnswer, "+OK\r\n", 5, 0, false},
		{redisAnswer, "$3\r\nvv", 4, 5, false},
		{redisAnswer, "$-1\r\n", 0, 0, true},
		{redisAnswer, "-ERR no\r\n", 0, 0, true},
		{redisAnswer, "\r\n", 0, 0, true},
	} {
		head, body, err := c.answer([]byte(c.text))
		if head != c.head || body != c.body || (err != nil) != c.bad {
			t.Errorf("%q: got %d, %d, %v; want %d, %d, an error %v", c.text, head, body, err, c.head, c.body, c.bad)
		}
	}
}
