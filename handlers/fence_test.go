package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

func TestSequenceAboveANumber(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "5001\n", "POST", "/db/1/sequence/a?above=5000")
	r.want(200, "5002\n", "POST", "/db/1/sequence/a?above=17")
	r.want(200, "6100\n", "POST", "/db/1/sequence/a?above=6000&n=100")
	r.refused(409, `sequence "a"`, "POST", "/db/1/sequence/a?above=9223372036854775807")
	r.refused(400, "above must be a whole number", "POST", "/db/1/sequence/a?above=5.0")
	r.want(200, "6100\n", "GET", "/db/1/sequence/a")
}

func TestCounterIsSetComparedAndEnds(t *testing.T) {
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, nil)
	const c = "/db/1/counter/c"
	r.refused(409, "does not exist; if=0", "POST", c+"?if=0")
	r.want(200, "5\n", "POST", c+"?set=5&if=none")
	r.refused(409, "if=none", "POST", c+"?if=none")
	r.refused(409, "if=4", "POST", c+"?if=4")
	r.want(200, "6\n", "POST", c+"?if=5")
	r.refused(409, "over max=9", "POST", c+"?set=10&max=9")
	r.want(200, "6\n", "GET", c)
	for query, part := range map[string]string{
		"add=1&set=2":       "add and set",
		"set=":              "set is empty",
		"if=some":           "if must be none or a whole number",
		"if=+1":             "if must be none or a whole number",
		"touch=true":        "touch=true needs a ttl",
		"touch=yes&ttl=1":   "touch must be true or false",
		"ttl=none":          "ttl must be a duration",
		"ttl=0":             "ttl must be a duration",
		"ttl=-1":            "ttl must be a duration",
		"set=1&min=5&max=4": "min=5 is over max=4",
	} {
		r.refused(400, part, "POST", c+"?"+query)
	}
	r.want(204, "", "DELETE", c)

	const w = "/db/1/counter/window"
	wantTTL := func(want string, header ...string) {
		t.Helper()
		if a := r.do("GET", w); a.header.Get("Ttl") != want {
			t.Errorf("got %v, want the header Ttl with %q", a, want)
		}
	}
	r.want(200, "1\n", "POST", w+"?ttl=60")
	clock.pass(20 * time.Second)
	r.want(200, "2\n", "POST", w+"?ttl=60")
	wantTTL("40.000")
	r.want(200, "3\n", "POST", w+"?ttl=1.5&touch=true")
	wantTTL("1.500")
	clock.pass(1500*time.Millisecond - 1)
	wantTTL("0.001")
	clock.pass(1)
	r.refused(404, `counter "window"`, "GET", w)
	r.want(200, "1\n", "POST", w)
	wantTTL("")
}

// A holder that has lost its lock cannot write anything.
func TestFencedWrites(t *testing.T) {
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, nil)
	take := func() string {
		t.Helper()
		return strings.TrimSpace(r.want(200, "*", "POST", "/db/1/lock/door?dur=60").body)
	}
	writes := []struct{ method, target string }{
		{"POST", "/db/1/sequence/a?n=2"}, {"DELETE", "/db/1/sequence/a?"},
		{"POST", "/db/1/counter/a?add=2"}, {"DELETE", "/db/1/counter/a?"},
		{"POST", "/db/1/kv/a?ttl=9h"}, {"PUT", "/db/1/kv/a?ttl=8h"}, {"DELETE", "/db/1/kv/a?"},
	}
	all := func(fence string, status int, part string) {
		t.Helper()
		for _, w := range writes {
			target := w.target + "&" + fence
			if status < 300 {
				if a := r.do(w.method, target); a.status/100 != 2 {
					t.Errorf("%s %s: %v", w.method, target, a)
				}
				continue
			}
			r.refused(status, part, w.method, target)
		}
		r.refused(404, "", "GET", "/db/1/sequence/a")
		r.refused(404, "", "GET", "/db/1/counter/a")
		r.refused(404, "", "GET", "/db/1/kv/a")
	}
	token := take()
	all("lock=door&token="+token, 200, "")
	none := fmt.Sprintf(`token %s does not hold lock "door": nothing was changed`, token)
	all("lock=other&token="+token, 409, `does not hold lock "other"`)
	all("lock=door&token=1"+token, 409, `does not hold lock "door"`)
	clock.pass(time.Minute)
	all("lock=door&token="+token, 409, none)
	second := take()
	all("lock=door&token="+token, 409, none)
	all("lock=door&token="+second, 200, "")
	r.want(204, "", "DELETE", "/db/1/lock/door")
	all("lock=door&token="+second, 409, "does not hold")

	mutex := strings.TrimSpace(r.want(200, "*", "POST", "/db/1/mlock/door").body)
	all("lock=door&token="+mutex, 409, "does not hold")
	other := strings.TrimSpace(r.want(200, "*", "POST", "/db/2/lock/door").body)
	all("lock=door&token="+other, 409, "does not hold")

	all("lock=door", 400, "lock and token go together")
	all("token=1", 400, "lock and token go together")
	all("lock=door&token=0", 400, "token must be a whole number from 1")
	all("lock=a%00b&token=1", 400, "lock must be the id of a lock")
	all("lock="+strings.Repeat("x", 256)+"&token=1", 400, "lock must be the id of a lock")

	third := take()
	a := r.raw("POST", request("POST", "/db/1/counter/a", `{"lock":"door","token":`+third+`,"if":"none"}`, "Content-Type: application/json"))
	if a.status != 200 || a.body != "1\n" {
		t.Errorf("a fence in the body: %v", a)
	}
}
