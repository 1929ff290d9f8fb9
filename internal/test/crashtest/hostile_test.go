package crashtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bystander is an honest client that has to be served all the time.
type bystander struct {
	stop, done chan struct{}
	count      int
	slowest    time.Duration
	err        error
}

func watch(addr string) *bystander {
	b := &bystander{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		c := &client{addr: addr}
		defer c.close()
		for {
			select {
			case <-b.stop:
				return
			default:
			}
			began := time.Now()
			a, err := c.do("POST", "/db/bystander/sequence/a", "")
			b.count++
			b.slowest = max(b.slowest, time.Since(began))
			if err != nil || a.body != fmt.Sprintf("%d\n", b.count) {
				b.err = fmt.Errorf("request %d of the bystander: %v, %v", b.count, a, err)
				return
			}
		}
	}()
	return b
}

// end stops the bystander. It returns an error if it was not served in time.
func (b *bystander) end() error {
	close(b.stop)
	<-b.done
	// Most of the hostile clients are cut off after 10 seconds. An honest one must not wait for that.
	if b.err == nil && b.slowest > 9*time.Second {
		return fmt.Errorf("an honest client waited %v", b.slowest)
	}
	return b.err
}

// TestHostileClientsHarmNobodyElse lets hostile clients of every kind loose on one server
// while an honest one is served. Then it checks what they have left behind.
func TestHostileClientsHarmNobodyElse(t *testing.T) {
	begin(t)
	t.Parallel()
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: "limits: {value: 64KiB}"})
	before, err := s.vitals()
	if err != nil {
		t.Fatal(err)
	}
	honest := watch(s.addr)

	crowd := atMost(1500, 200)
	slowHeads, err := crowdOf(s.addr, crowd, func(i int) string { return "POST /db/1/sequence/slow HTTP/1.1\r\nHost: localhost\r\nA: b"[:20+i%28] })
	defer hangUp(slowHeads)
	if err != nil {
		t.Fatal(err)
	}
	slowBodies, err := crowdOf(s.addr, crowd, func(i int) string {
		return fmt.Sprintf("PUT /db/1/kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n%0*d", 1+i%1000, 7)
	})
	defer hangUp(slowBodies)
	if err != nil {
		t.Fatal(err)
	}
	// The clients do not read their answers, which are larger than the buffers of the kernel.
	c := &client{addr: s.addr}
	mustBe(t, c, 200, "PUT", "/db/1/kv/unread", strings.Repeat("u", 64<<10))
	unread, err := crowdOf(s.addr, atMost(100, 20), func(int) string {
		return strings.Repeat("GET /db/1/kv/unread HTTP/1.1\r\nHost: localhost\r\n\r\n", 200)
	})
	defer hangUp(unread)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("header bombs", func(t *testing.T) { headerBombs(t, s) })
	t.Run("bodies that lie", func(t *testing.T) { lyingBodies(t, s) })
	t.Run("pipelining", func(t *testing.T) { pipelining(t, s) })
	t.Run("early hang-ups", func(t *testing.T) { earlyHangUps(t, s) })
	t.Run("noise", func(t *testing.T) { noise(t, s) })
	t.Run("odd targets", func(t *testing.T) { oddTargets(t, s) })
	t.Run("parameters", func(t *testing.T) { parameters(t, s) })
	t.Run("names", func(t *testing.T) { names(t, s) })
	t.Run("guessed tokens", func(t *testing.T) { guesses(t, s) })

	// The server does not wait forever for a header.
	for _, c := range slowHeads {
		b, err := c.rest()
		if err != nil || serverError(string(b)) != nil {
			t.Fatalf("a connection whose header does not come is not closed: %q, %v", b, err)
		}
	}
	hangUp(slowHeads)
	hangUp(slowBodies)
	hangUp(unread)
	mustBe(t, c, 404, "GET", "/db/1/kv/slow", "")
	mustBe(t, c, 404, "GET", "/db/1/sequence/slow", "")
	c.close()
	if err := honest.end(); err != nil {
		t.Errorf("%v\n%s", err, s.output())
	}
	var after vitals
	err = eventually("descriptors and goroutines are what they were", func() bool {
		after, err = s.vitals()
		return err == nil && after.files <= before.files+1 && after.goroutines <= before.goroutines+2
	})
	if err != nil {
		t.Errorf("%v: %+v before, %+v after", err, before, after)
	}
	if most := 400 << 20; after.memory > most && !raceEnabled {
		t.Errorf("%d MiB of memory at a time, want at most %d", after.memory>>20, most>>20)
	}
	t.Logf("%d honest requests, the slowest took %v; before %+v, after %+v", honest.count, honest.slowest, before, after)
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

func headerBombs(t *testing.T, s *server) {
	for name, head := range map[string]string{
		"one long line":    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"many lines":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A: b\r\n", 100_000) + "\r\n",
		"many names":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + lines(50_000) + "\r\n",
		"a long target":    "GET /db/1/kv/" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a long method":    strings.Repeat("A", 1<<20) + " / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"never a line end": strings.Repeat("A", 1<<20),
		"long trailers":    "PUT /db/1/kv/bomb HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n1\r\na\r\n0\r\n" + strings.Repeat("A: b\r\n", 100_000) + "\r\n",
		"long chunk lines": "PUT /db/1/kv/bomb HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 1<<20) + "\r\na\r\n0\r\n\r\n",
	} {
		got, err := say(s.addr, head, true)
		if err == nil {
			err = serverError(got)
		}
		for _, status := range statuses(got) {
			if status < 400 {
				err = fmt.Errorf("accepted: %s", brief(got))
			}
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "A%d: b\r\n", i)
	}
	return b.String()
}

// lyingBodies sends bodies that are not what their header says. None is stored.
func lyingBodies(t *testing.T, s *server) {
	c := &client{addr: s.addr}
	defer c.close()
	for name, rest := range map[string]string{
		"stops short":            "Content-Length: 100\r\n\r\n12345",
		"stops before it begins": "Content-Length: 100\r\n\r\n",
		"two lengths":            "Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
		"length and chunks":      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n1234",
		"negative":               "Content-Length: -5\r\n\r\n12345",
		"signed":                 "Content-Length: +5\r\n\r\n12345",
		"no number":              "Content-Length: five\r\n\r\n12345",
		"beyond int64":           "Content-Length: 99999999999999999999\r\n\r\n12345",
		"enormous":               "Content-Length: 9223372036854775807\r\n\r\n12345",
		"over the limit":         "Content-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537),
		"chunks over the limit":  "Transfer-Encoding: chunked\r\n\r\n10001\r\n" + strings.Repeat("x", 65537) + "\r\n0\r\n\r\n",
		"chunks stop short":      "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"no last chunk's end":    "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
		"a chunk beyond int64":   "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n12345",
		"a negative chunk":       "Transfer-Encoding: chunked\r\n\r\n-5\r\n12345\r\n0\r\n\r\n",
		"no chunks":              "Transfer-Encoding: chunked\r\n\r\nhello",
		"codings":                "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
		"expects, stops":         "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n12345",
		"expects anything":       "Expect: a miracle\r\nContent-Length: 100\r\n\r\n12345",
	} {
		target := "/db/lies/kv/" + url.PathEscape(name)
		got, err := say(s.addr, "PUT "+target+" HTTP/1.1\r\nHost: localhost\r\n"+rest, true)
		if err == nil {
			err = serverError(got)
		}
		for _, status := range statuses(got) {
			if status != 100 && status < 400 {
				err = fmt.Errorf("accepted: %s", brief(got))
			}
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a, err := c.do("GET", target, ""); err != nil || a.status != 404 {
			t.Errorf("%s is stored: %v, %v", name, a, err)
		}
	}
}

// pipelining sends many requests before it reads an answer, and then also hangs up without reading any.
func pipelining(t *testing.T, s *server) {
	const n = 1000
	request := "POST /db/1/sequence/pipe HTTP/1.1\r\nHost: localhost\r\n\r\n"
	got, err := say(s.addr, strings.Repeat(request, n)+"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", false)
	if err != nil {
		t.Fatal(err)
	}
	if all := statuses(got); len(all) != n+1 {
		t.Errorf("%d answers to %d requests", len(all), n+1)
	}
	at := 0
	for i := range n {
		next := strings.Index(got[at:], fmt.Sprintf("\r\n\r\n%d\n", i+1))
		if next < 0 {
			t.Fatalf("answer %d is not there, or not in its place; behind the one before: %.600q", i+1, got[at:])
		}
		at += next
	}
	gone, err := crowdOf(s.addr, 50, func(int) string { return strings.Repeat(request, n/10) })
	if err != nil {
		t.Error(err)
	}
	hangUp(gone)
}

// earlyHangUps ends connections after each byte of a request, by a close or a reset.
func earlyHangUps(t *testing.T, s *server) {
	c := &client{addr: s.addr}
	defer c.close()
	for i := range 400 {
		target := fmt.Sprintf("/db/1/kv/hangup-%d", i)
		request := "PUT " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n12345678901234567890"
		if i >= 2*len(request) {
			break
		}
		n := i % len(request)
		conn, err := dialRaw(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request[:n]); err != nil {
			t.Error(err)
		}
		if i >= len(request) {
			if err := conn.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if a, err := c.do("GET", target, ""); err != nil || a.status != 404 {
			t.Errorf("after %d of %d bytes it is stored: %v, %v", n, len(request), a, err)
		}
	}
}

// noise sends random bytes, and requests with some bytes changed.
func noise(t *testing.T, s *server) {
	rng := rand.New(rand.NewPCG(*seed, 4))
	for n := range atMost(600, 100) {
		b := []byte("PUT /db/noise/kv/a?ttl=5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345")
		if n%2 == 0 {
			b = make([]byte, rng.IntN(2000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		} else {
			for range 1 + rng.IntN(6) {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
		}
		got, err := say(s.addr, string(b), true)
		if err == nil {
			err = serverError(got)
		}
		if err != nil {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func oddTargets(t *testing.T, s *server) {
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI", "get", "A!#$%&'*+-.^_`|~", ""} {
		for _, target := range []string{"*", "/", "//", "/db", "/db/", "/db//sequence/a", "/db/1/sequence/", "/db/1//a", "//db/1/sequence/odd", "/db/1/sequence/a/b",
			"/db/1/sequence/..", "/db/../healthz", "/db/1/sequence/%2e%2e", "/db/1/sequence/%", "/db/1/sequence/%zz", "/db/1/sequence/%00", "/db/1/sequence/a\x00", "/db/1/sequence/odd?n=",
			"/db/1/sequence/odd?n=1&n=1", "/db/1/sequence/odd?%zz", "/db/1/sequence/odd?;", "/db/1/sequence/odd?n=9999999999999999999999", "/DB/1/sequence/a", "/db/1/Sequence/a",
			"http://", "http://elsewhere/db/1/sequence/odd?x", "elsewhere:443", "?", "#", "/db/1/sequence/odd#x?n=0", strings.Repeat("/", 5000), "/metrics/", "/healthz/.", "/healthz?x=1", "\xff\xfe"} {
			got, err := say(s.addr, method+" "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", true)
			if err == nil {
				err = serverError(got)
			}
			if err == nil && len(statuses(got)) != 1 {
				err = fmt.Errorf("%d answers: %q", len(statuses(got)), brief(got))
			}
			if err != nil {
				t.Errorf("%s %s: %v", method, brief(target), err)
			}
		}
	}
}

// names uses arbitrary bytes as names. Each accepted name has to be a different thing.
func names(t *testing.T, s *server) {
	rng := rand.New(rand.NewPCG(*seed, 5))
	c := &client{addr: s.addr}
	defer c.close()
	seen := make(map[[2]string]bool)
	for range atMost(1000, 200) {
		acc, id := anyName(rng, 66), anyName(rng, 258)
		want := 200
		if badName(acc, 64) || badName(id, 255) {
			want = 400
		}
		if acc == "" || id == "" {
			want = 404
		}
		target := "/db/" + escape(rng, acc) + "/sequence/" + escape(rng, id)
		a, err := c.do("POST", target, "")
		if err != nil || a.status != want {
			t.Fatalf("POST %q: %v, %v, want %d", target, a, err, want)
		}
		if key := [2]string{acc, id}; want == 200 {
			if (a.body == "1\n") == seen[key] {
				t.Errorf("POST %q: %v, known already: %v", target, a, seen[key])
			}
			seen[key] = true
		} else if strings.Count(a.body, "\n") != 1 {
			t.Errorf("POST %q: more than a line: %v", target, a)
		}
	}
}

// anyName makes a name that may be too long and may contain any bytes.
func anyName(rng *rand.Rand, most int) string {
	n := rng.IntN(4)
	if rng.IntN(3) == 0 {
		n = rng.IntN(most + 1)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = pick(rng, []byte("ab./%+ \x00\xff\n;?#\"\\"))
		if rng.IntN(2) == 0 {
			b[i] = byte('a' + rng.IntN(2))
		}
	}
	return string(b)
}

func badName(s string, most int) bool {
	return len(s) > most || s == "." || s == ".." || strings.Contains(s, "\x00")
}

// escape escapes a name for a path, sometimes more of it than is needed.
func escape(rng *rand.Rand, s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; (c == 'a' || c == 'b' || c == '.' || c == '+' || c == ';') && rng.IntN(2) == 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// guesses takes a lock and tries the fencing tokens around the true one.
func guesses(t *testing.T, s *server) {
	c := &client{addr: s.addr}
	defer c.close()
	token, err := mustBe(t, c, 200, "POST", "/db/1/lock/guess?dur=1h&id=owner", "").number()
	if err != nil {
		t.Fatal(err)
	}
	for guess := token - 20; guess <= token+20; guess++ {
		if guess == token || guess < 1 {
			continue
		}
		mustBe(t, c, 409, "DELETE", fmt.Sprintf("/db/1/lock/guess?token=%d", guess), "")
		mustBe(t, c, 409, "POST", fmt.Sprintf("/db/1/lock/guess?token=%d", guess), "")
	}
	mustBe(t, c, 200, "GET", "/db/1/lock/guess", "")
}
