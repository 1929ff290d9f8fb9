package handlers

import (
	"errors"
	command "flag" // the package has a flag of its own
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

// The requests that TestLoopsAnswerAsNetHTTP sends to the pair of servers.
var (
	askedMethods = []string{"GET", "POST", "PUT", "DELETE"}
	askedPaths   = []string{"sequence/a", "sequence/b", "counter/a", "counter/b", "kv/a", "kv/b", "kv/b", "mlock/m", "munlock/m", "lock/l", "lock/l", "rate/r"}
	askedQueries = map[string][]string{
		"sequence": {"", "", "n=5", "n=0", "n=1000000", "above=50", "x=1", "n=1&n=2"},
		"counter":  {"", "", "add=5", "add=-5&min=0", "set=3", "if=3", "add=", "add=9223372036854775807", "max=4"},
		"kv":       {"", "", "ver=1", "ver=0", "ttl=99", "ver=x"},
		"mlock":    {"wait=0", "wait=0&id=me", "wait=0&id=you&dur=99", "wait=0&limit=2", "wait=0&shared=true", "token=1&wait=0", "wait=0&least=9"},
		"munlock":  {"", "id=me", "token=1", "force=true", "force=yes"},
		"rate":     {"", "limit=9&per=1h", "limit=9&per=1h&cost=4", "limit=9&per=1h&burst=3&cost=4", "limit=9&per=1h&wait=1", "limit=9&per=0", "per=1h", "limit=9&per=1h&wait=x"},
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

// askOne makes a request. With odd it is one that an event loop leaves to net/http.
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

// paced is a request that a rate delays for a moment if another one came just before it.
// Its answer is the same either way.
func paced(acc string) string {
	return request("POST", "/db/"+acc+"/rate/paced?limit=999&per=1&burst=1&wait=60", "")
}

// last is a request after whose answer the connection ends.
const last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// exchangeRaw sends pieces on a new connection and returns everything that is answered. With
// half the client closes its sending side right after, otherwise if the server has not
// closed the connection within patience.
func (r *rig) exchangeRaw(pieces [][]byte, half bool, patience time.Duration) (string, error) {
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
	// The connection may be closed already.
	if half {
		_ = c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		return string(got), err
	}
	_, _ = io.WriteString(c, last)
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return string(got), err
	}
	// The server takes the last request for a part of an earlier one.
	_ = c.(*net.TCPConn).CloseWrite()
	if err := c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return "", err
	}
	rest, err := io.ReadAll(c)
	return string(got) + string(rest), err
}

// shortBodies shortens the bodies of a message for a log.
var shortBodies = strings.NewReplacer(strings.Repeat("v", 100), "", strings.Repeat("w", 100), "", strings.Repeat("x", 100), "")

// varying matches the parts of an answer that differ from one time to another, and the error
// line for a malformed request, which depends on how much of it was read.
var varying = regexp.MustCompile(`Vary: Accept\r\nContent-Length: \d+\r\n\r\n(bad request|the path has a bad)[^\n]*\n|Content-Length: \d+\r\n\r\n(\{"id"|\{"error":"rate |rate |\[|HTTP|$)|Date: [^\r]*|;t=\d+|Retry-After-Ms: \d*|more now, and \d+ in [0-9a-zµ.]*|Lock-Expires: [^\r]*|Ttl: [^\r]*|Retry-After: \d*|"expires":"[^"]*"|"ttl":[0-9.]*`)

// pair is a server with event loops and one without.
type pair [2]*rig

var pairNames = [2]string{"the loops", "net/http"}

func newPair(t *testing.T) (p pair) {
	t.Helper()
	was := withLoops
	defer func() { withLoops = was }()
	for i := range p {
		withLoops = i == 0
		p[i] = newRigOn(t, db.Options{}, nil)
	}
	return p
}

// pairAnswer is what both of them answered, and what they observed.
type pairAnswer struct {
	got  [2]string
	seen [2][]string
	errs [2]error
}

// ask sends the same pieces to both: see exchangeRaw.
func (p pair) ask(pieces [][]byte, half bool, patience time.Duration) (a pairAnswer) {
	for i, r := range p {
		a.got[i], a.errs[i] = r.exchangeRaw(pieces, half, patience)
		for len(r.seen) > 0 {
			a.seen[i] = append(a.seen[i], fmt.Sprint(<-r.seen))
		}
		slices.Sort(a.seen[i])
	}
	return a
}

// wasReset reports whether the connection was reset, so that the end of an answer may be lost.
func (a *pairAnswer) wasReset() bool { return a.errs[0] != nil || a.errs[1] != nil }

// differ reports whether the answers differ in more than the varying parts.
func (a *pairAnswer) differ() bool {
	with, without := varying.ReplaceAllString(a.got[0], "-"), varying.ReplaceAllString(a.got[1], "-")
	if a.wasReset() {
		n := min(len(with), len(without))
		return with[:n] != without[:n]
	}
	return with != without || !slices.Equal(a.seen[0], a.seen[1])
}

func (a pairAnswer) String() string {
	return fmt.Sprintf("%s: %v, observed %q\n%q\n%s: %v, observed %q\n%q",
		pairNames[0], a.errs[0], a.seen[0], a.got[0], pairNames[1], a.errs[1], a.seen[1], a.got[1])
}

// special are bytes with a meaning in the head of a request.
const special = "\r\n :\t\x00,;0/?%"

// mutate changes a message in a few places: bytes are replaced, removed or doubled, or a part
// is copied to another place.
func mutate(g *rand.Rand, b []byte) []byte {
	for range 1 + g.IntN(3) {
		at := g.IntN(len(b))
		switch g.IntN(5) {
		case 0:
			b[at] = byte(g.IntN(256))
		case 1:
			b[at] = special[g.IntN(len(special))]
		case 2:
			b = slices.Delete(b, at, at+1)
		case 3:
			b = slices.Insert(b, at, b[at])
		default:
			n := g.IntN(min(80, len(b)-at))
			b = slices.Insert(b, g.IntN(len(b)), slices.Clone(b[at:at+n])...)
		}
		if len(b) == 0 {
			return []byte("\n")
		}
	}
	return b
}

// cutUp cuts a message at random places.
func cutUp(g *rand.Rand, rest []byte) (pieces [][]byte) {
	for len(rest) > 0 {
		n := len(rest)
		if g.IntN(2) == 0 {
			n = 1 + g.IntN(n)
		}
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	return pieces
}

var (
	messages    = command.Int("messages", 1500, "how many messages are sent to a server with event loops and to one without")
	messageSeed = command.Uint64("seed", 0, "what the messages follow from; 0: another one each time")
)

// TestLoopsAnswerAsNetHTTP sends the same bytes to a server with event loops and to
// one without: one to five requests at once, half of them odd, cut at random places.
func TestLoopsAnswerAsNetHTTP(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: see withLoops")
	}
	seed := *messageSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat it with -args -seed %d", seed)
	known := readSmuggled(t)
	const pairs = 4
	done := make(chan struct{}, pairs)
	for n := range pairs {
		p := newPair(t)
		g := rand.New(rand.NewPCG(seed, uint64(n)))
		go func() {
			defer func() { done <- struct{}{} }()
			var resets, answers int
			each := *messages / pairs
			for i := range each {
				acc := fmt.Sprintf("acc%d", i/50)
				var message []byte
				// Nothing odd is beside a request that waits, so that only the server ends
				// the connection.
				waits, patience := g.IntN(8) == 0, 300*time.Millisecond
				if waits {
					patience = time.Minute
				}
				for range 1 + g.IntN(5) {
					if waits {
						message = append(message, askOne(g, acc, false)...)
						message = append(message, paced(acc)+paced(acc)...)
						continue
					}
					if g.IntN(20) == 0 {
						message = append(message, known[g.IntN(len(known))].message(acc)...)
						continue
					}
					message = append(message, askOne(g, acc, g.IntN(2) == 0)...)
				}
				if !waits && g.IntN(8) == 0 {
					message = mutate(g, message)
				}
				// A client that has closed its sending side and asks for a lock or a rate is taken
				// for gone.
				half := !strings.Contains(string(message), "lock/") && !strings.Contains(string(message), "rate/")
				pieces := cutUp(g, message)
				a := p.ask(pieces, half, patience)
				if a.differ() {
					t.Errorf("message %d of pair %d, %d pieces:\n%q\n%v", i, n, len(pieces), shortBodies.Replace(string(message)), a)
					return
				}
				answers += strings.Count(a.got[0], "HTTP/1.1 ")
				if a.wasReset() {
					resets++
				}
			}
			t.Logf("pair %d: %d messages, %d answers, %d connections were reset", n, each, answers, resets)
		}()
	}
	for range pairs {
		<-done
	}
}
