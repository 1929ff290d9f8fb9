package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// A standby answers lists, and reads of locks and rates, from what its primary has sent.
func TestStandbyAnswersStaleListsLocksAndRates(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	c := http.DefaultClient
	primary := "http://" + p.addr
	post := func(path string) string {
		t.Helper()
		code, body := ask(t, c, "POST", primary+path)
		if code != 200 {
			t.Fatalf("POST %s: %d %s", path, code, body)
		}
		return strings.TrimSpace(body)
	}
	post("/db/1/sequence/before")
	sb := standbyOf(t, p, "sync: true")
	sb.until("it is in sync", inSync)
	p.until("its standby is in sync", inSync)
	base := "http://" + sb.addr
	for _, id := range []string{"a", "b", "c"} {
		post("/db/1/sequence/" + id)
	}
	first := post("/db/1/lock/l?id=first&limit=2&dur=1h")
	second := post("/db/1/lock/l?id=second&limit=2&dur=1h")
	post("/db/1/lock/short?id=me&dur=1ms")
	post("/db/1/mlock/m?id=me&dur=1h")
	post("/db/mutex-only/mlock/m?id=me&dur=1h")
	post("/db/lock-only/lock/l?id=me&dur=1h")
	want(t, c, "POST", primary+"/db/1/rate/r?limit=10&per=1000h&cost=4", 200, "6\n")
	post("/db/z/sequence/last")
	// Every answered write but the last is applied for sure; the last one soon.
	eventually(t, func() string {
		_, body := ask(t, c, "GET", base+"/db/z/sequence/last?stale=true")
		if body == "1\n" {
			return ""
		}
		return "the standby still says " + body
	})
	want(t, c, "GET", base+"/db?stale=true", 200, "1\nlock-only\nz\n")
	want(t, c, "GET", base+"/db/1/sequence?stale=true", 200, "a\nb\nbefore\nc\n")
	want(t, c, "GET", base+"/db/1/rate?stale=true", 200, "r\n")
	want(t, c, "GET", base+"/db/1/mlock?stale=true", 200, "")
	want(t, c, "GET", base+"/db/1/rate/r?limit=10&per=1000h&stale=true", 200, "6\n")
	if code, body := ask(t, c, "GET", base+"/db/1/mlock/m?stale=true"); code != 404 {
		t.Errorf("GET of a mutex: %d %s, want 404", code, body)
	}
	eventually(t, func() string { // its end may be a moment later by the clock of the standby
		if code, body := ask(t, c, "GET", base+"/db/1/lock/short?stale=true"); code != 404 {
			return body
		}
		return ""
	})
	want(t, c, "GET", base+"/db/1/lock?stale=true", 200, "l\n")
	if code, body := ask(t, c, "GET", base+"/db/1/lock/l?token=99999999&stale=true"); code != 409 {
		t.Errorf("GET of a lock with another token: %d %s, want 409", code, body)
	}
	for _, path := range []string{"/db/1/lock/l?stale=true", "/db/1/lock/l?stale=true&token=" + first, "/db/1/lock/l?stale=true&token=" + second} {
		code, body := ask(t, c, "GET", base+path)
		var got struct {
			ID      string
			Waiters int
			Holders []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
			t.Fatalf("GET %s: %d %s %v", path, code, body, err)
		}
		holder, holders := "first", 0
		if strings.HasSuffix(path, "token="+second) {
			holder = "second"
		} else if !strings.Contains(path, "token=") {
			holders = 2
		}
		if got.ID != holder || got.Waiters != 0 || len(got.Holders) != holders {
			t.Errorf("GET %s: %s", path, body)
		}
	}
	// The pages, as JSON, by their Link.
	var ids []string
	for next := "/db/1/sequence?limit=2&stale=true"; next != ""; {
		r, err := http.NewRequestWithContext(t.Context(), "GET", base+next, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var page []struct {
			ID    string
			Value int64
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("GET %s: %d %v", next, res.StatusCode, err)
		}
		for _, x := range page {
			if ids = append(ids, x.ID); x.Value != 1 {
				t.Errorf("%s is %d", x.ID, x.Value)
			}
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	}
	if got := strings.Join(ids, " "); got != "a b before c" {
		t.Errorf("the pages have %q", got)
	}
	sb.stop()
	p.stop()
}
