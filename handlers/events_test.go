package handlers

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// stream begins a stream of events and returns its lines.
func (r *rig) stream(target string, headers ...string) *bufio.Scanner {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, request("GET", target, "", headers...)); err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		r.t.Fatalf("got %d %v", resp.StatusCode, resp.Header)
	}
	return bufio.NewScanner(resp.Body)
}

// data returns the next line of a stream that begins with prefix, without it.
func (r *rig) data(lines *bufio.Scanner, prefix string) string {
	r.t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	r.t.Fatalf("the stream ends: %v", lines.Err())
	return ""
}

func TestEventsAreSentAsTheyCome(t *testing.T) {
	r := newRig(t, nil)
	lines := r.stream("/db/1/events")
	kv := r.stream("/db/1/events?api=kv&prefix=a")
	v := strings.TrimSpace(r.want(200, "*", "PUT", "/db/1/kv/b").body)
	if got := r.data(lines, "event: ") + " " + r.data(lines, "data: "); got != `kv {"id":"b","op":"set","version":`+v+`}` {
		t.Error(got)
	}
	r.want(200, "*", "POST", "/db/1/counter/%FF?set=9007199254740993")
	if got := r.data(lines, "event: ") + " " + r.data(lines, "data: "); got != `counter {"id":"\ufffd","id64":"/w==","op":"set","value":9007199254740993,"text":"9007199254740993"}` {
		t.Error(got)
	}
	r.want(200, "*", "POST", "/db/1/counter/ends?add=0&ttl=60")
	r.want(200, "*", "POST", "/db/1/counter/ends?add=0&ttl=90&touch=true")
	for _, op := range []string{"set", "ttl"} {
		if got := r.data(lines, "event: ") + " " + r.data(lines, "data: "); got != `counter {"id":"ends","op":"`+op+`","value":0}` {
			t.Error(got)
		}
	}
	token := strings.TrimSpace(r.want(200, "*", "POST", "/db/1/lock/l").body)
	r.want(204, "", "DELETE", "/db/1/lock/l")
	for _, op := range []string{"set", "delete"} {
		if got := r.data(lines, "event: ") + " " + r.data(lines, "data: "); got != `lock {"id":"l","op":"`+op+`","token":`+token+`}` {
			t.Error(got)
		}
	}
	v = strings.TrimSpace(r.want(200, "*", "PUT", "/db/1/kv/a1").body)
	r.data(lines, "data: ")
	if got := r.data(kv, "data: "); got != `{"id":"a1","op":"set","version":`+v+`}` {
		t.Error(got)
	}
	r.refused(400, "api must be", "GET", "/db/1/events?api=mlock")
	r.want(200, "", "HEAD", "/db/1/events")
	r.watching(2)
	r.db.Drain()
	if got := r.data(lines, "event: "); got != "stop" {
		t.Error(got)
	}
	r.refused(503, "shutting down", "GET", "/db/1/events")
	r.watching(0)
}

// TestStreamEndsWithItsToken takes tokens out of force while streams are open.
func TestStreamEndsWithItsToken(t *testing.T) {
	old, good := Token{Token: "old"}, Token{Token: "good"}
	tokens := NewTokens(old, good)
	r := newRig(t, func(o *Options, _ *http.Server) { o.Tokens = tokens })
	revoked := r.stream("/db/1/events", "Authorization: Bearer old")
	moved := r.stream("/db/1/events", "Authorization: Bearer good")
	tokens.Set([]Token{good})
	r.want(200, "1\n", "POST", "/db/1/counter/a", "Authorization: Bearer good")
	if got, want := r.data(revoked, "event: ")+" "+r.data(revoked, "data: "), `refused {"error":"the token is not known here","status":401}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for revoked.Scan() {
		if revoked.Text() != "" {
			t.Errorf("the stream goes on: %q", revoked.Text())
		}
	}
	if got := r.data(moved, "event: "); got != "counter" {
		t.Error(got)
	}
	good.Accounts = []string{"2"}
	tokens.Set([]Token{old, good})
	r.want(200, "2\n", "POST", "/db/1/counter/a", "Authorization: Bearer old")
	if got, want := r.data(moved, "event: ")+" "+r.data(moved, "data: "), `refused {"error":"this token is not for account \"1\"","status":403}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
