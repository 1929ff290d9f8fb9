package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGuessedTokensLetNobodyIn tries tokens that resemble the token of a server, and many
// others.
func TestGuessedTokensLetNobodyIn(t *testing.T) {
	begin(t)
	const token = "s3cret-TOKEN-of-the-server"
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: "token: " + token})
	rng := rand.New(rand.NewPCG(*seed, 7))
	tries := []string{"", " ", token[1:], token[:len(token)-1], token + "x", token + token, strings.ToLower(token), strings.ToUpper(token), "\"" + token + "\"",
		strings.Repeat("s", len(token)), strings.Repeat("s", 1000), "%", "null", "undefined", "admin"}
	for i := range token {
		tries = append(tries, token[:i]+string(token[i]^1)+token[i+1:])
	}
	for range atMost(200, 50) {
		b := make([]byte, 1+rng.IntN(40))
		for i := range b {
			b[i] = byte('!' + rng.IntN('~'-'!'))
		}
		tries = append(tries, string(b))
	}
	for _, try := range tries {
		for _, scheme := range []string{"Bearer ", "Basic ", "Digest ", ""} {
			if scheme == "" && try == "" {
				continue
			}
			got, err := say(s.addr, "POST /db/1/sequence/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: "+scheme+try+"\r\n\r\n", false)
			if all := statuses(got); err != nil || !slices.Equal(all, []int{401}) {
				t.Fatalf("%q is answered %v, %v: %s", brief(scheme+try), all, err, brief(got))
			}
			if strings.Contains(got, token) {
				t.Fatalf("%q is answered with the token: %s", brief(scheme+try), got)
			}
		}
	}
	got, err := say(s.addr, "POST /db/1/sequence/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n", false)
	if err != nil || !strings.HasSuffix(got, "\r\n\r\n1\n") {
		t.Errorf("the token lets in: %v, %s", err, got)
	}
	if strings.Contains(s.output(), token) {
		t.Error("the server's log shows the token")
	}
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

// parameters sends random parameters. Each answer has to be one of the contract, and a refused
// call must change nothing.
func parameters(t *testing.T, s *server) {
	rng := rand.New(rand.NewPCG(*seed, 8))
	c := &client{addr: s.addr}
	defer c.close()
	names := []string{"n", "add", "min", "max", "ver", "ttl", "dur", "wait", "id", "token", "force", "strange", "N", "dur ", ""}
	values := []string{"1", "0", "-1", "7", "+5", " 5", "5.0", "0x5", "1e3", "", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
		"-9223372036854775809", "NaN", "Inf", "-Inf", "1e400", "0.001", "500us", "-1s", "25h", "true", "false", "maybe", "\x00", "\xff", "a b", "1\n2", strings.Repeat("9", 5000)}
	statuses := make(map[int]int)
	for i := range atMost(3000, 500) {
		api, method := pick(rng, []string{"sequence", "counter", "kv", "lock", "mlock", "munlock"}), pick(rng, []string{"GET", "POST", "POST", "PUT", "DELETE"})
		bare := fmt.Sprintf("/db/parameters/%s/%d", api, i)
		var query, used []string
		mustRefuse := false
		for range rng.IntN(4) {
			name, value := pick(rng, names), pick(rng, values)
			mustRefuse = mustRefuse || slices.Contains(used, name) || slices.Contains([]string{"strange", "N", "dur ", ""}, name)
			used = append(used, name)
			query = append(query, url.QueryEscape(name)+"="+url.QueryEscape(value))
		}
		target := bare + "?" + strings.Join(query, "&")
		a, err := c.do(method, target, "")
		if err != nil {
			t.Fatalf("%s %q: %v", method, target, err)
		}
		statuses[a.status]++
		switch {
		case !slices.Contains([]int{200, 204, 400, 404, 405, 409}, a.status),
			mustRefuse && a.status != 400 && a.status != 405,
			a.status >= 400 && (strings.Count(a.body, "\n") != 1 || len(a.body) > 1000):
			t.Errorf("%s %q: %d %q", method, brief(target), a.status, brief(a.body))
		}
		if a.status >= 400 && !strings.HasPrefix(api, "m") {
			mustBe(t, c, 404, "GET", bare, "")
		}
	}
	if statuses[200] == 0 || statuses[204] == 0 || statuses[400] == 0 || statuses[404] == 0 {
		t.Errorf("too few kinds of answers: %v", statuses)
	}
}
