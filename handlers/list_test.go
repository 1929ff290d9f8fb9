package handlers

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

func TestListIsOneIdALine(t *testing.T) {
	r := newRig(t, nil)
	for _, id := range []string{"b", "a", "a%2Fb", "%FF", "c%20d"} {
		for _, api := range []string{"sequence", "counter", "lock", "mlock"} {
			r.want(200, "*", "POST", "/db/a%20c/"+api+"/"+id)
		}
		r.want(200, "*", "POST", "/db/a%20c/rate/"+id+"?limit=1&per=1h")
		r.want(200, "*", "PUT", "/db/a%20c/kv/"+id)
	}
	for _, api := range []string{"sequence", "counter", "lock", "mlock", "rate", "kv"} {
		path := "/db/a%20c/" + api
		a := r.want(200, "a\na%2Fb\nb\nc%20d\n%FF\n", "GET", path)
		if a.header.Get("Link") != "" || a.header.Get("Cache-Control") != "no-store" {
			t.Error(a)
		}
		r.want(200, "", "HEAD", path)
		r.want(200, "", "GET", "/db/nobody/"+api)
		r.want(200, "a%2Fb\n", "GET", path+"?prefix=a&after=a")
		// This is how a script follows the pages.
		var all string
		for next := path + "?limit=2"; next != ""; {
			a := r.want(200, "*", "GET", next)
			all += a.body
			link := a.header.Get("Link")
			if next = ""; link != "" {
				var ok bool
				if next, ok = strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`); !ok {
					t.Fatalf("Link is %s", link)
				}
			}
		}
		if all != "a\na%2Fb\nb\nc%20d\n%FF\n" {
			t.Errorf("%s in pages: %q", path, all)
		}
		if link := r.do("GET", path+"?prefix=a&limit=1").header.Get("Link"); link != "<"+path+`?prefix=a&after=a&limit=1>; rel="next"` {
			t.Errorf("Link is %s", link)
		}
		r.refused(400, "limit must be a whole number from 1 to 10000", "GET", path+"?limit=10001")
		r.refused(400, "prefix has 256 bytes", "GET", path+"?prefix="+strings.Repeat("x", 256))
		r.refused(400, "unknown parameter", "GET", path+"?from=x")
		if a := r.refused(405, "use GET, HEAD", "POST", path); a.header.Get("Allow") != "GET, HEAD" {
			t.Error(a)
		}
	}
	r.want(200, "a%20c\n", "GET", "/db")
	r.want(200, "", "GET", "/db?after=b&limit=1")
	r.want(200, `[{"id":"a c"}]`+"\n", "GET", "/db", "Accept: application/json")
}

func TestListAsJSONTellsWhatAHeadWould(t *testing.T) {
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, nil)
	r.want(200, "*", "POST", "/db/1/sequence/%FE?n=7")
	r.want(200, "*", "POST", "/db/1/counter/big?set=9007199254740993&ttl=1h")
	v := strings.TrimSpace(r.put("/db/1/kv/a?ttl=1h", "text", "Content-Type: text/x").body)
	token := strings.TrimSpace(r.want(200, "*", "POST", "/db/1/lock/a?id=me&dur=1h").body)
	clock.pass(time.Millisecond)
	for path, want := range map[string]string{
		"/db/1/sequence": `[{"id":"\ufffd","id64":"/g==","value":7}]`,
		"/db/1/counter":  `[{"id":"big","value":9007199254740993,"text":"9007199254740993","ttl":3599`,
		"/db/1/kv":       `[{"id":"a","version":` + v + `,"size":4,"type":"text/x","ttl":3599`,
		"/db/1/lock":     `[{"id":"a","owner":"me","token":` + token + `,"ttl":3599`,
		"/db/1/mlock":    `[]`,
	} {
		a := r.want(200, "*", "GET", path, "Accept: application/json")
		var items []map[string]any
		if err := json.Unmarshal([]byte(a.body), &items); err != nil || !strings.HasPrefix(a.body, want) {
			t.Errorf("%s: got %s, want %s (%v)", path, a.body, want, err)
		}
	}
}

func TestListIsForWhoMaySeeTheAccount(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Tokens = NewTokens(Token{Token: "all", ReadOnly: true}, Token{Token: "one", Accounts: []string{"1"}})
	})
	for _, c := range []struct {
		token, path string
		status      int
	}{
		{"all", "/db", 200}, {"all", "/db/2/kv", 200}, {"one", "/db/1/kv", 200},
		{"one", "/db/2/kv", 403}, {"one", "/db", 403}, {"", "/db", 401}, {"", "/db/1/kv", 401},
	} {
		if a := r.do("GET", c.path, "Authorization: Bearer "+c.token); a.status != c.status {
			t.Errorf("%v: got %v", c, a)
		}
	}
}

func TestListIsNoPartOfABatch(t *testing.T) {
	r := newRig(t, nil)
	if a := r.put("/db/1/batch", "GET kv"); a.status != 400 {
		t.Error(a)
	}
	for _, line := range []string{"GET kv/a?not=none", "GET counter/a?not=3&wait=1", "GET lock/a?not=none", "GET sequence/a?wait=0"} {
		if a := r.put("/db/1/batch", line); a.status != 400 {
			t.Errorf("%s: %v", line, a)
		}
	}
}
