package handlers

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// smuggled is a line of testdata/smuggling.txt.
type smuggled struct {
	name   string
	second bool   // what is hidden is the second request
	bytes  string // with placeholders
}

func readSmuggled(t *testing.T) []smuggled {
	t.Helper()
	text, err := os.ReadFile("testdata/smuggling.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []smuggled
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line == "" || line[0] == '#' {
			continue
		}
		parts := strings.SplitN(line, " | ", 3)
		if len(parts) != 3 || parts[1] != "one" && parts[1] != "two" {
			t.Fatalf("testdata/smuggling.txt has the line %q", line)
		}
		bytes, err := strconv.Unquote(parts[2])
		if err != nil {
			t.Fatalf("%s: %v", parts[0], err)
		}
		all = append(all, smuggled{parts[0], parts[1] == "two", bytes})
	}
	return all
}

// message returns the bytes to send, with a hidden request to a sequence of the given account.
func (s smuggled) message(acc string) string {
	hidden := "POST /db/" + acc + "/sequence/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
	harmless := "/db/" + acc + "/kv/a HTTP/1.1\r\nHost: localhost\r\n"
	return strings.NewReplacer(
		"{POST}", "POST "+harmless, "{PUT}", "PUT "+harmless, "{GET}", "GET "+harmless, "{ACC}", acc, "{HIDDEN}", hidden,
		"{LEN}", strconv.Itoa(len(hidden)), "{MORE}", strconv.Itoa(len(hidden)+1), "{HEX}", fmt.Sprintf("%02x", len(hidden)),
	).Replace(s.bytes)
}

// succeeded matches the beginning of a successful answer.
var succeeded = regexp.MustCompile(`HTTP/1\.1 [23]\d\d `)

// TestNothingIsSmuggledInARequest sends bytes that one server might read as one request and
// another server as two. It sends them in up to two pieces, to a server with event loops and
// to one without.
func TestNothingIsSmuggledInARequest(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: see withLoops")
	}
	p := newPair(t)
	for i, s := range readSmuggled(t) {
		sample := s.message("acc000-0")
		behindHead := max(1, strings.Index(sample, "\r\n\r\n")+len("\r\n\r\n"))
		for j, cut := range []int{len(sample), 1, len(sample) / 3, behindHead, len(sample) - 3} {
			acc := fmt.Sprintf("acc%03d-%d", i, j)
			message := s.message(acc)
			a := p.ask([][]byte{[]byte(message[:cut]), []byte(message[cut:])}, true, 300*time.Millisecond)
			if a.differ() {
				t.Errorf("%s, cut at %d: %q\n%v", s.name, cut, message, a)
			}
			for k, r := range p {
				done := r.do("GET", "/db/"+acc+"/sequence/hidden").status == 200
				<-r.seen
				if done != s.second || !s.second && len(succeeded.FindAllString(a.got[k], -1)) > 1 {
					t.Errorf("%s, cut at %d: the hidden request is done: %v; %q is answered by %s\n%q",
						s.name, cut, done, message, pairNames[k], a.got[k])
				}
			}
		}
	}
}
