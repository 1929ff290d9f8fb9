package handlers

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

const replayed = "Idempotency-Replayed"

func keyHeader(key string) string { return idempotencyKey + ": " + key }

// Every write with a retry key is done once. Sent again, it gets the same answer, whatever has
// happened to the thing meanwhile.
func TestEveryWriteWithAKeyIsDoneOnce(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "*", "POST", "/db/1/kv/there")
	lock := strings.TrimSpace(r.want(200, "*", "POST", "/db/1/lock/l?dur=9h").body)
	for i, w := range []struct {
		method, target, body string
		headers              []string
	}{
		{"POST", "/db/1/sequence/a?n=10", "", nil},
		{"POST", "/db/1/sequence/a", "n=5", []string{"Content-Type: " + form}},
		{"DELETE", "/db/1/sequence/a", "", nil},
		{"POST", "/db/1/counter/a?add=3&ttl=60", "", nil},
		{"POST", "/db/1/counter/a", `{"add":-1}`, []string{"Content-Type: application/json", "Accept: application/json"}},
		{"POST", "/db/1/counter/a?add=2&lock=l&token=" + lock, "", nil},
		{"DELETE", "/db/1/counter/a", "", nil},
		{"POST", "/db/1/kv/a?ver=0", "one", []string{"Content-Type: text/x"}},
		{"PUT", "/db/1/kv/b?ttl=60", "two", nil},
		{"PUT", "/db/1/kv/c", "three", []string{"If-None-Match: *"}},
		{"PUT", "/db/1/kv/d", "", nil},
		{"PATCH", "/db/1/kv/there?ttl=60", "", nil},
		{"DELETE", "/db/1/kv/there", "", nil},
		{"POST", "/db/1/rate/a?limit=10&per=60", "", nil},
		{"DELETE", "/db/1/rate/a", "", nil},
		{"POST", "/db/1/batch", "POST counter/a?add=7\nPUT kv/e five\nGET kv/none\n", nil},
		{"POST", "/db/1/batch?atomic=false", "POST counter/a?add=7\nPOST counter/a?add=7&max=7\n", nil},
		{"POST", "/db/1/batch", `[{"method":"POST","path":"sequence/z"}]`, []string{"Content-Type: application/json"}},
	} {
		send := func(headers ...string) reply {
			t.Helper()
			return r.raw(w.method, request(w.method, w.target, w.body, append(append([]string{keyHeader(fmt.Sprint("key ", i))}, w.headers...), headers...)...))
		}
		first := send()
		if first.status/100 != 2 || first.header[replayed] != nil {
			t.Errorf("%s %s: %v", w.method, w.target, first)
			continue
		}
		for _, again := range []reply{send(), send("Accept: application/json;q=0.1, text/plain")} {
			if again.status != first.status || again.body != first.body || again.header.Get("ETag") != first.header.Get("ETag") ||
				again.header.Get("Content-Type") != first.header.Get("Content-Type") || again.header.Get(replayed) != "true" {
				t.Errorf("%s %s: first %v, then %v", w.method, w.target, first, again)
			}
		}
	}
	r.want(200, "14\n", "GET", "/db/1/counter/a") // of the three batches
	r.want(200, "1\n", "GET", "/db/1/sequence/z")
}

func TestAKeyStandsForOneRequest(t *testing.T) {
	r := newRig(t, nil)
	send := func(method, target, body string, headers ...string) reply {
		t.Helper()
		return r.raw(method, request(method, target, body, append(headers, keyHeader(`"k"`))...))
	}
	if a := send("PUT", "/db/1/kv/a?ttl=60", "body"); a.status != 200 {
		t.Fatalf("%v", a)
	}
	for _, other := range []struct{ method, target, body string }{
		{"POST", "/db/1/kv/a?ttl=60", "body"},
		{"PUT", "/db/1/kv/b?ttl=60", "body"},
		{"PUT", "/db/1/kv/a?ttl=61", "body"},
		{"PUT", "/db/1/kv/a", "body"},
		{"PUT", "/db/1/kv/a?ttl=60", "bodies"},
		{"PUT", "/db/1/kv/a?ttl=60", ""},
		{"POST", "/db/1/counter/a", ""},
		{"DELETE", "/db/1/kv/a", ""},
		{"POST", "/db/1/batch", "POST counter/a"},
	} {
		r.checkRefusal(send(other.method, other.target, other.body), 422, `"k" was used for another request`, other.method+" "+other.target)
	}
	if a := send("PUT", "/db/1/kv/a?ttl=60", "body"); a.status != 200 || a.header.Get(replayed) != "true" {
		t.Errorf("the request itself: %v", a)
	}
	if a := send("PUT", "/db/2/kv/a", "another account"); a.status != 200 || a.header[replayed] != nil {
		t.Errorf("the key in another account: %v", a)
	}
	r.refused(404, "", "GET", "/db/1/counter/a")
}

func TestARefusalIsNotKept(t *testing.T) {
	r := newRig(t, nil)
	const key = idempotencyKey + ": k"
	r.refused(409, "under min=0", "POST", "/db/1/counter/a?add=-1&min=0", key)
	r.want(200, "5\n", "POST", "/db/1/counter/a?add=5")
	r.want(200, "4\n", "POST", "/db/1/counter/a?add=-1&min=0", key)
	r.want(200, "4\n", "POST", "/db/1/counter/a?add=-1&min=0", key)
	a := r.raw("POST", request("POST", "/db/1/batch", "POST counter/a\nPOST counter/a?max=0\n", idempotencyKey+": b"))
	r.checkRefusal(a, 409, "line 2", "a batch")
	r.want(200, "4\n", "GET", "/db/1/counter/a")
	a = r.raw("POST", request("POST", "/db/1/batch", "GET kv/none?ver=3\n", idempotencyKey+": b"))
	r.checkRefusal(a, 409, "line 1", "another batch with the key of the one that was refused")
}

func TestRetryKeyIsPrintableASCII(t *testing.T) {
	r := newRig(t, nil)
	for _, bad := range []string{"", `""`, `"`, `"a`, `a"`, `a"b`, `"a"b"`, strings.Repeat("x", 256), `"` + strings.Repeat("x", 256) + `"`, "a\tb", "é", "a\x7fb"} {
		r.refused(400, idempotencyKey, "POST", "/db/1/counter/a", keyHeader(bad))
	}
	r.refused(400, "given twice", "POST", "/db/1/counter/a", keyHeader("a"), keyHeader("a"))
	r.refused(404, "", "GET", "/db/1/counter/a")
	for i, good := range []string{"a", "a b", "~!{}[],;=", strings.Repeat("x", 255), `"` + strings.Repeat("y", 255) + `"`, `  spaced  `} {
		r.want(200, fmt.Sprintln(i+1), "POST", "/db/1/counter/a", keyHeader(good))
	}
	for _, same := range []string{`"a"`, "a ", `"a b"`, "spaced"} {
		if a := r.do("POST", "/db/1/counter/a", keyHeader(same)); a.header.Get(replayed) != "true" {
			t.Errorf("%q is not the key it was: %v", same, a)
		}
	}
}

func TestLocksTakeNoRetryKeyAndReadsIgnoreIt(t *testing.T) {
	r := newRig(t, nil)
	const key = idempotencyKey + ": k"
	for _, w := range [][2]string{
		{"POST", "/db/1/lock/a"}, {"DELETE", "/db/1/lock/a"}, {"POST", "/db/1/mlock/a"}, {"POST", "/db/1/munlock/a"},
	} {
		r.refused(400, "is not for locks", w[0], w[1], key)
	}
	a := r.raw("POST", request("POST", "/db/1/batch", "POST counter/a\nPOST lock/a\n", key))
	r.checkRefusal(a, 400, "line 2: the header Idempotency-Key is not for locks", "a lock in a batch")
	r.refused(404, "", "GET", "/db/1/counter/a", key)
	r.want(200, "1\n", "POST", "/db/1/counter/a", key)
	for _, k := range []string{key, idempotencyKey + `: "`} {
		r.want(200, "1\n", "GET", "/db/1/counter/a", k)
		r.want(200, "", "HEAD", "/db/1/counter/a", k)
		r.want(404, "*", "GET", "/db/1/lock/a", k)
	}
}

// A call with a key can wait for a rate too, and is counted once.
func TestARateWithAKeyIsWaitedFor(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "0\n", "POST", "/db/1/rate/a?limit=1&per=0.05")
	for _, again := range []string{"", "true"} {
		a := r.want(200, "0\n", "POST", "/db/1/rate/a?limit=1&per=0.05&wait=30", keyHeader("w"))
		if a.header.Get(replayed) != again {
			t.Errorf("%v, want %s: %q", a, replayed, again)
		}
	}
	r.want(200, "0\n", "POST", "/db/1/rate/b?limit=1&per=3600")
	r.refused(409, `rate "b"`, "POST", "/db/1/rate/b?limit=1&per=3600&wait=30", keyHeader("late"))
	r.refused(409, `rate "b"`, "POST", "/db/1/rate/b?limit=1&per=3600", keyHeader("at once"))
}

// An answer is replayed to a token that may write, and to no other.
func TestAReplayNeedsAGoodToken(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Tokens = NewTokens(Token{Token: "all"}, Token{Token: "reader", ReadOnly: true})
	})
	send := func(token string) reply {
		return r.do("POST", "/db/shop/counter/a", keyHeader("k"), "Authorization: Bearer "+token)
	}
	if a := send("all"); a.status != 200 {
		t.Fatalf("%v", a)
	}
	if a := send("all"); a.header.Get(replayed) != "true" {
		t.Errorf("%v", a)
	}
	if a := send("wrong"); a.status != 401 || a.header[replayed] != nil {
		t.Errorf("without a token: %v", a)
	}
	if a := send("reader"); a.status != 403 || a.header[replayed] != nil {
		t.Errorf("with a token that only reads: %v", a)
	}
}

func TestAnswersAreKeptForTheLimit(t *testing.T) {
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, func(o *Options, _ *http.Server) { o.Limits.Replay = 10 * time.Second })
	r.want(200, "1\n", "POST", "/db/1/counter/a", keyHeader("k"))
	clock.pass(10*time.Second - 1)
	r.want(200, "1\n", "POST", "/db/1/counter/a", keyHeader("k"))
	clock.pass(1)
	r.want(200, "2\n", "POST", "/db/1/counter/a", keyHeader("k"))
}

// Stored answers are under ids with a NUL, which clients cannot name.
func TestKeptAnswersCannotBeAddressed(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "/db/1/counter/a", keyHeader("key"))
	r.refused(400, "NUL", "GET", "/db/1/kv/%00%2C%70%E1%2B%7A%06%46%F9%22%79%F4%27%C7%B3%8E%73")
}

func FuzzRetryKey(f *testing.F) {
	for _, s := range []string{"", `""`, `"a"`, `"a`, "a b", "\x7f", "é", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, err := parseRetryKey(line)
		if err != nil {
			if key != "" || !strings.Contains(err.Error(), idempotencyKey) {
				t.Errorf("%q: key %q, %v", line, key, err)
			}
			return
		}
		if len(key) < 1 || len(key) > maxRetryKey || !strings.Contains(line, key) || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is taken for the key %q", line, key)
		}
		if again, err := parseRetryKey(`"` + key + `"`); err != nil || again != key {
			t.Errorf("%q in quotes is %q, %v", key, again, err)
		}
	})
}
