package handlers

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

// What is asked of the pair of servers in TestLoopsAnswerAsNetHTTP.
var (
	askedMethods = []string{"GET", "POST", "PUT", "DELETE"}
	askedPaths   = []string{"sequence/a", "sequence/b", "counter/a", "counter/b", "kv/a", "kv/b", "kv/b", "mlock/m", "munlock/m", "lock/l", "lock/l"}
	askedQueries = map[string][]string{
		"sequence": {"", "", "n=5", "n=0", "n=1000000", "above=50", "x=1", "n=1&n=2"},
		"counter":  {"", "", "add=5", "add=-5&min=0", "set=3", "if=3", "add=", "add=9223372036854775807", "max=4"},
		"kv":       {"", "", "ver=1", "ver=0", "ttl=99", "ver=x"},
		"mlock":    {"wait=0", "wait=0&id=me", "wait=0&id=you&dur=99", "wait=0&limit=2", "wait=0&shared=true", "token=1&wait=0", "wait=0&least=9"},
		"munlock":  {"", "id=me", "token=1", "force=true", "force=yes"},
		"lock":     {"", "id=me", "id=you&dur=99", "token=1", "shared=true", "limit=2", "force=true"},
	}
	askedHeaders = []string{
		"Accept: */*", "Accept: application/json", "Accept: text/plain;q=0.5, application/json", "User-Agent: curl/8.5.0",
		"Content-Type: text/html", "Content-Type: application/x-www-form-urlencoded", "Content-Type: application/json",
		"Connection: keep-alive", "accept-encoding: gzip", "Authorization: Bearer x",
	}
	oddHeaders = []string{
		"Connection: close", "Expect: 100-continue", "Expect: other", "If-Match: *", `If-None-Match: "1"`, "Range: bytes=1-2",
		"Idempotency-Key: abc", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Upgrade: h2c", "Host: other",
		"Host: localhost", "Content-Length: 3", "Content-Length: 03", "Transfer-Encoding: gzip", "Cookie: a=b", "X-A : b", " folded",
		"Accept: a\tb", "Accept", "Content-Encoding: gzip", "Transfer-Encoding: chunked",
	}
	askedBodies = []string{"", "", "", "value", "add=1", "n=2", `{"n":3}`, `{"add":"7"}`, strings.Repeat("v", 2100), strings.Repeat("w", 9000), strings.Repeat("x", 20_000)}
)

// askOne makes a request, which is odd in one way or another if odd.
func askOne(g *rand.Rand, acc string, odd bool) string {
	pick := func(of []string) string { return of[g.IntN(len(of))] }
	method, path := pick(askedMethods), pick(askedPaths)
	api, _, _ := strings.Cut(path, "/")
	target := "/db/" + acc + "/" + path
	if q := pick(askedQueries[api]); q != "" {
		target += "?" + q
	}
	if g.IntN(20) == 0 {
		target = pick([]string{"/healthz", "/healthz?x", "/nothing", "/db/" + acc + "/kv", "/", "/metrics"})
	}
	var headers []string
	for range g.IntN(4) {
		headers = append(headers, pick(askedHeaders))
	}
	body := ""
	if method != "GET" || odd {
		body = pick(askedBodies)
	}
	proto, host := "HTTP/1.1", "Host: localhost"
	if odd {
		switch g.IntN(9) {
		case 0, 1:
			headers = append(headers, pick(oddHeaders))
		case 2:
			target = strings.Replace(target, "/a", pick([]string{"/%61", "/a%2Fb", "/%zz", "/a%00", "/..", "/a b", "/ä", "//"}), 1)
		case 3:
			method = pick([]string{"HEAD", "OPTIONS", "PATCH", "get", "LOCK", ""})
		case 4:
			proto = pick([]string{"HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", ""})
		case 5:
			host = pick([]string{"Host: evil.example", "Host:", "host: LOCALHOST:80", "Host: a/b", "X: y"})
		case 6:
			target = pick([]string{"http://localhost", "*", "", "http://"}) + target
		case 7:
			// Chunked.
			return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", method, target, 5, "hello")
		}
	}
	end := "\r\n"
	if odd && g.IntN(12) == 0 {
		end = "\n"
	}
	lines := append([]string{method + " " + target + " " + proto, host}, headers...)
	if body != "" || method != "GET" && g.IntN(2) == 0 {
		lines = append(lines, "Content-Length: "+strconv.Itoa(len(body)))
	}
	r := strings.Join(lines, end) + end + end + body
	if odd && g.IntN(4) == 0 {
		b := []byte(r)
		switch at := g.IntN(len(b)); g.IntN(3) {
		case 0:
			b[at] = byte(g.IntN(256))
		case 1:
			b = append(b[:at], b[at+1:]...)
		default:
			b = append(b[:at+1], b[at:]...)
		}
		r = string(b)
	}
	return r
}

// last is a request whose answer is the last of its connection.
const last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// exchangeRaw sends pieces on a connection of their own and returns all that is
// answered. With half the client then ends its side at once.
func (r *rig) exchangeRaw(pieces [][]byte, half bool) (string, error) {
	c, err := net.Dial(r.network, r.addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return "", err
	}
	for _, p := range pieces {
		if _, err := c.Write(p); err != nil {
			break // the answer says why
		}
		runtime.Gosched()
	}
	// It may be closed already.
	if half {
		_ = c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		return string(got), err
	}
	_, _ = io.WriteString(c, last)
	if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return string(got), err
	}
	// The server takes the last request for a part of another.
	_ = c.(*net.TCPConn).CloseWrite()
	if err := c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return "", err
	}
	rest, err := io.ReadAll(c)
	return string(got) + string(rest), err
}

// shortBodies makes a message fit for a log.
var shortBodies = strings.NewReplacer(strings.Repeat("v", 100), "", strings.Repeat("w", 100), "", strings.Repeat("x", 100), "")

// varying is what differs from one time to another, and the line that says what is
// wrong with a request that is none: it depends on how much was read of it.
var varying = regexp.MustCompile(`Vary: Accept\r\nContent-Length: \d+\r\n\r\n(bad request|the path has a bad)[^\n]*\n|Content-Length: \d+\r\n\r\n(\{"id"|\[|HTTP|$)|Date: [^\r]*|Lock-Expires: [^\r]*|Ttl: [^\r]*|Retry-After: \d*|"expires":"[^"]*"|"ttl":[0-9.]*`)

// TestLoopsAnswerAsNetHTTP sends the same bytes to a server with event loops and to
// one without: one to five requests at once, half of them odd, cut at random places.
// CLOUDDRAGON_MESSAGES sets how many.
func TestLoopsAnswerAsNetHTTP(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: see withLoops")
	}
	messages, _ := strconv.Atoi(os.Getenv("CLOUDDRAGON_MESSAGES"))
	if messages == 0 {
		messages = 1500
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("CLOUDDRAGON_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("CLOUDDRAGON_SEED=%d", seed)
	was := withLoops
	defer func() { withLoops = was }()
	const pairs = 4
	done := make(chan struct{}, pairs)
	for pair := range pairs {
		withLoops = true
		with := newRigOn(t, db.Options{}, nil)
		withLoops = false
		without := newRigOn(t, db.Options{}, nil)
		for _, r := range []*rig{with, without} {
			go func() {
				for range r.seen {
				}
			}()
		}
		g := rand.New(rand.NewPCG(seed, uint64(pair)))
		go func() {
			defer func() { done <- struct{}{} }()
			resets := 0
			for i := range messages / pairs {
				acc := fmt.Sprintf("acc%d", i/50)
				var message []byte
				for range 1 + g.IntN(5) {
					message = append(message, askOne(g, acc, g.IntN(2) == 0)...)
				}
				var pieces [][]byte
				for rest := message; len(rest) > 0; {
					n := len(rest)
					if g.IntN(2) == 0 {
						n = 1 + g.IntN(n)
					}
					pieces, rest = append(pieces, rest[:n]), rest[n:]
				}
				// Whoever has ended its side is taken for gone where it asks for a lock.
				half := !strings.Contains(string(message), "lock/")
				got, err1 := with.exchangeRaw(pieces, half)
				want, err2 := without.exchangeRaw(pieces, half)
				a, b := varying.ReplaceAllString(got, "-"), varying.ReplaceAllString(want, "-")
				if err1 != nil || err2 != nil {
					resets++ // the end of an answer may be lost in a reset
					n := min(len(a), len(b))
					a, b = a[:n], b[:n]
				}
				if a != b {
					t.Errorf("message %d of pair %d, %d pieces, errors %v and %v:\n%q\nwith loops\n%q\nwithout\n%q",
						i, pair, len(pieces), err1, err2, shortBodies.Replace(string(message)), got, want)
					return
				}
			}
			t.Logf("pair %d: %d of %d connections were reset", pair, resets, messages/pairs)
		}()
	}
	for range pairs {
		<-done
	}
}
