package handlers

import (
	"net/http"
	"strings"
	"testing"

	"clouddragon/db"
)

// TestOtherShardsAccountIs421 asks for an account of another server in every way.
func TestOtherShardsAccountIs421(t *testing.T) {
	r := newRigOn(t, db.Options{Accounts: []string{"shop", "a/b"}}, nil)
	r.want(200, "1\n", "POST", "/db/shop/sequence/s")
	r.want(200, "1\n", "POST", "/db/a%2Fb/sequence/s")
	const line = `account "other" is not one of this server's: ask the server that has it`
	for i := range endpoints {
		e := &endpoints[i]
		for _, path := range e.paths("other", "x") {
			if !strings.HasPrefix(path, "/db/other/") {
				continue
			}
			r.refused(http.StatusMisdirectedRequest, line, e.method, path)
			// Other faults of the call are for the other server to report.
			r.refused(http.StatusMisdirectedRequest, line, e.method, path+"?nonsense=1")
		}
	}
	const asJSON = "Content-Type: " + jsonType
	for _, a := range []reply{
		r.send("POST", "/db/other/batch", "POST sequence/s\n"), r.send("PUT", "/db/other/kv/v", "value"),
		r.send("POST", "/db/other/sequence/s", `{"n":5}`, asJSON), r.do("POST", "/db/other/sequence/s", "Idempotency-Key: k"),
		r.send("PUT", "/db/other/kv/v", strings.Repeat("v", 1<<20), "Expect: 100-continue"),
	} {
		r.checkRefusal(a, http.StatusMisdirectedRequest, line, "a body")
	}
	a := r.do("GET", "/db/other/kv/v", "Accept: application/json")
	if a.status != 421 || !strings.HasPrefix(a.body, `{"error":"account \"other\" is not`) || !strings.HasSuffix(a.body, `"status":421}`+"\n") {
		t.Errorf("as JSON: %v", a)
	}
	if a := r.do("HEAD", "/db/other/kv/v"); a.status != 421 {
		t.Errorf("HEAD: %v", a)
	}
	// A request that matches no route is refused as such, whatever the account.
	r.refused(404, "no such route", "GET", "/db/other/nothing/x")
	r.refused(405, "not allowed", "PUT", "/db/other/sequence/x")
	r.refused(400, "may not be", "GET", "/db/../kv/x")
	for _, target := range []string{"/", "/healthz", "/healthz?role=primary", "/openapi.json", "/db"} {
		if a := r.do("GET", target); a.status != 200 {
			t.Errorf("%s: %v", target, a)
		}
	}
}

// TestTokenIsAskedForBeforeTheShard keeps strangers from learning which accounts are here.
func TestTokenIsAskedForBeforeTheShard(t *testing.T) {
	r := newRigOn(t, db.Options{Accounts: []string{"shop"}}, func(o *Options, _ *http.Server) {
		o.Tokens = NewTokens(Token{Token: "all"}, Token{Token: "some", Accounts: []string{"shop"}})
	})
	r.refused(401, "a token is needed", "GET", "/db/other/kv/v")
	r.refused(403, "not for account", "GET", "/db/other/kv/v", "Authorization: Bearer some")
	r.refused(421, `account "other"`, "GET", "/db/other/kv/v", "Authorization: Bearer all")
}

// TestOnlyOwnAccountsAreListed lists the data of a server that also has data of other servers'
// accounts.
func TestOnlyOwnAccountsAreListed(t *testing.T) {
	dir := t.TempDir()
	var all []string
	for i := range 26 {
		all = append(all, string(rune('a'+i)))
	}
	open := func(accounts ...string) *db.DB {
		d, err := db.Open(db.Options{Dir: dir, Segment: 4 << 20, Extent: 4096, CheckpointRoom: 4096, Accounts: accounts})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	list := func(d *db.DB, limit int) string {
		var got []string
		for after := ""; ; {
			accounts, next, err := d.Accounts(t.Context(), after, limit)
			if err != nil || len(accounts) > limit {
				t.Fatal(accounts, err)
			}
			got = append(got, accounts...)
			if after = next; after == "" {
				return strings.Join(got, " ")
			}
		}
	}
	d := open()
	for _, acc := range all {
		if _, err := d.AddSequence(db.Key{Acc: acc, ID: "s"}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, own := range [][]string{{"z"}, {"a", "m", "y"}, {"none"}} {
		d := open(own...)
		want := strings.Join(own, " ")
		if want == "none" {
			want = ""
		}
		for _, limit := range []int{1, 2, 3, 25, 1000} {
			if got := list(d, limit); got != want {
				t.Errorf("own %v, limit %d: listed %q", own, limit, got)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d = open()
	if got := list(d, 7); got != strings.Join(all, " ") {
		t.Errorf("with all: %q", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
