package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// fakeLists answers like a server with these accounts and locks, one page at a time.
func fakeLists(health int) http.HandlerFunc {
	answers := map[string]string{
		"/db":                      "a%2Fb\n",
		"/db?after=a%2Fb":          "shop\n",
		"/db/a%2Fb/lock":           `[{"id":"one","owner":"host1","token":7}]`,
		"/db/a%2Fb/lock?after=one": `[{"id":"two ways"},{"id":"over"}]`,
		"/db/a%2Fb/lock/one":       `{"id":"host1","token":7,"ttl":12.345,"expires":"2026-11-22T10:00:00.000Z","waiters":0}`,
		"/db/a%2Fb/lock/two%20ways": `{"id":"r1","token":8,"ttl":1,"expires":"2026-11-22T10:00:01.000Z","waiters":3,` +
			`"holders":[{"id":"r1","token":8,"ttl":1,"expires":"2026-11-22T10:00:01.000Z","waiters":3},{"id":"","token":9,"ttl":2,"expires":"2026-11-22T10:00:02.000Z","waiters":3}],` +
			`"queue":[{"id":"w1","waited":1.25}]}`,
		"/db/a%2Fb/mlock": `[]`,
		"/db/shop/lock":   `[]`,
		"/db/shop/mlock":  `[]`,
	}
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if r.URL.Path == "/healthz" {
			w.WriteHeader(health)
			_, _ = io.WriteString(w, map[int]string{200: "ok\n", 503: "the disk failed\n"}[health])
			return
		}
		answer, ok := answers[r.RequestURI]
		if !ok {
			http.Error(w, "not locked", http.StatusNotFound)
			return
		}
		switch r.RequestURI {
		case "/db":
			h.Set("Link", `</db?after=a%2Fb>; rel="next"`)
		case "/db/a%2Fb/lock":
			h.Set("Link", `</db/a%2Fb/lock?after=one>; rel="next"`)
		}
		_, _ = io.WriteString(w, answer)
	}
}

func runStatus(server string, args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = run(append([]string{"status", "-server", server}, args...), &out, &err)
	return code, out.String(), err.String()
}

func TestStatusTellsWhoHoldsAndWhoWaits(t *testing.T) {
	t.Setenv("CLOUDDRAGON_TOKEN", "")
	server := httptest.NewServer(fakeLists(200))
	defer server.Close()
	code, got, complaint := runStatus(server.URL)
	want := "server  " + server.URL + `
health  ok

ACCOUNT  API   NAME      STATE  ID      TOKEN  TIME
a/b      lock  one       held   host1   7      12.3s left, until 2026-11-22T10:00:00.000Z
a/b      lock  two ways  held   r1      8      1.0s left, until 2026-11-22T10:00:01.000Z
a/b      lock  two ways  held   -       9      2.0s left, until 2026-11-22T10:00:02.000Z
a/b      lock  two ways  waits  w1             for 1.2s
a/b      lock  two ways  waits  2 more         ` + "\n"
	if code != 0 || got != want || complaint != "" {
		t.Errorf("exit code %d, %q:\n%s\nwant:\n%s", code, complaint, got, want)
	}

	code, got, complaint = runStatus(server.URL, "-json", "-account", "a/b")
	var o overview
	if err := json.Unmarshal([]byte(got), &o); err != nil || code != 0 || complaint != "" {
		t.Fatalf("exit code %d, %q, %v: %s", code, complaint, err, got)
	}
	if len(o.Locks) != 2 || o.Health != "ok" || !reflect.DeepEqual(o.Locks[1].Queue, []waiter{{"w1", 1.25}}) || len(o.Locks[1].Holders) != 2 {
		t.Errorf("as JSON: %s", got)
	}

	code, got, _ = runStatus(server.URL, "-account", "shop")
	if code != 0 || !strings.HasSuffix(got, "\n\nnothing is held\n") {
		t.Errorf("of an account without locks: exit code %d, %s", code, got)
	}
}

func TestStatusExitCodes(t *testing.T) {
	t.Setenv("CLOUDDRAGON_TOKEN", "")
	ill := httptest.NewServer(fakeLists(503))
	defer ill.Close()
	if code, got, _ := runStatus(ill.URL); code != 69 || !strings.Contains(got, "health  the disk failed\n") || !strings.Contains(got, "host1") {
		t.Errorf("of a server that stopped writes: exit code %d, %s", code, got)
	}
	foreign := httptest.NewServer(http.NotFoundHandler())
	defer foreign.Close()
	closed := start(t, small(t, "listen: 127.0.0.1:0\ntoken: secret\n"))
	for server, want := range map[string]int{foreign.URL: 69, "http://127.0.0.1:1": 69, "http://" + closed.addr: 77, "nowhere:x:y": 64} {
		if code, _, complaint := runStatus(server, "-account", "a"); code != want || strings.Count(complaint, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want %d and one line", server, code, complaint, want)
		}
	}
	if code, _, _ := runStatus(foreign.URL, "more"); code != 64 {
		t.Errorf("an argument too many: exit code %d, want 64", code)
	}
	code, help, _ := runStatus("", "-help")
	for _, word := range []string{"-server", "-token-file", "-account", "-json", "CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN", "  69 ", "  77 "} {
		if code != 0 || !strings.Contains(help, word) {
			t.Errorf("the help does not name %s", word)
		}
	}
	closed.stop()
}

func TestStatusOfAServer(t *testing.T) {
	t.Setenv("CLOUDDRAGON_TOKEN", "")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	server := "http://" + p.addr
	want(t, http.DefaultClient, "POST", server+"/db/a%2Fb/lock/one%20two?id=host1&dur=600", http.StatusOK, "1\n")
	want(t, http.DefaultClient, "POST", server+"/db/shop/mlock/till?shared=true&dur=600", http.StatusOK, "2\n")
	want(t, http.DefaultClient, "POST", server+"/db/shop/mlock/till?shared=true&dur=600&id=r2", http.StatusOK, "3\n")
	s := runLock(t, server, "-account", "a/b", "-id", "next", "-wait", "1h", "one two", "true")
	p.waits("lock", 1)
	code, got, complaint := runStatus(server)
	for _, row := range []string{
		"a/b      lock   one two  held   host1  1      ",
		"a/b      lock   one two  waits  next          for ",
		"shop     mlock  till     held   -      2      ",
		"shop     mlock  till     held   r2     3      ",
	} {
		if !strings.Contains(got, "\n"+row) {
			t.Errorf("exit code %d, %q: there is no row %q in\n%s", code, complaint, row, got)
		}
	}
	want(t, http.DefaultClient, "DELETE", server+"/db/a%2Fb/lock/one%20two?id=host1", http.StatusNoContent, "")
	s.endsQuietly(0)
	p.stop()
}
