package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

func TestSuccessIsPlainText(t *testing.T) {
	r := newRig(t, nil)
	for _, call := range []struct{ method, target string }{
		{"POST", "/db/1/sequence/a"}, {"GET", "/db/1/sequence/a"}, {"POST", "/db/1/counter/a"}, {"POST", "/db/1/lock/a"}, {"GET", "/healthz"},
	} {
		a := r.do(call.method, call.target)
		if got := a.header.Get("Content-Type"); a.status != 200 || got != "text/plain; charset=utf-8" || strings.Count(a.body, "\n") != 1 {
			t.Errorf("%v: %v", call, a)
		}
	}
}

func TestJSONOnRequest(t *testing.T) {
	r := newRig(t, nil)
	accept := "Accept: application/json"
	for _, call := range []struct {
		status               int
		method, target, body string
	}{
		{200, "POST", "/db/1/sequence/a?n=7", `{"value":7}`},
		{200, "GET", "/db/1/sequence/a", `{"value":7}`},
		{200, "POST", "/db/1/counter/a?add=-5", `{"value":-5}`},
		{200, "GET", "/healthz", `{"value":"ok"}`},
		{404, "GET", "/db/1/sequence/b", `{"error":"there is no sequence \"b\" of account \"1\"","status":404}`},
		{404, "GET", "/db/1/sequence/%FF%22%5C%0A", `{"error":"there is no sequence \"\\xff\\\"\\\\\\n\" of account \"1\"","status":404}`},
		{400, "POST", "/db/1/sequence/a?n=x", `{"error":"n must be a whole number from 1 to 1000000, not \"x\"","status":400}`},
		{409, "POST", "/db/1/counter/a?min=5", `{"error":"counter \"a\" is at -5: adding 1 gives -4, under min=5","status":409}`},
		{405, "PUT", "/db/1/counter/a", `{"error":"method \"PUT\" is not allowed on counter: use GET, HEAD, POST, DELETE","status":405}`},
		{405, "POST", "/db/1/counter", `{"error":"method \"POST\" is not allowed on counter without an id: use GET, HEAD","status":405}`},
	} {
		a := r.do(call.method, call.target, accept)
		var got, want any
		if err := json.Unmarshal([]byte(call.body), &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatalf("%s: %v", call.target, err)
		}
		if a.status != call.status || a.header.Get("Content-Type") != "application/json" || !reflect.DeepEqual(got, want) || !strings.HasSuffix(a.body, "}\n") {
			t.Errorf("%s %s: got %v, want %s", call.method, call.target, a, call.body)
		}
	}
	r.want(204, "", "DELETE", "/db/1/sequence/a", accept)
}

// JavaScript reads numbers as float64.
func TestNumbersTooLargeForJavaScriptComeAsTextToo(t *testing.T) {
	r := newRig(t, nil)
	accept := "Accept: application/json"
	for _, c := range []struct{ add, body string }{
		{"9007199254740992", `{"value":9007199254740992}`},
		{"1", `{"value":9007199254740993,"text":"9007199254740993"}`},
		{"-9007199254740993", `{"value":0}`},
		{"-9007199254740992", `{"value":-9007199254740992}`},
		{"-1", `{"value":-9007199254740993,"text":"-9007199254740993"}`},
	} {
		r.want(200, c.body+"\n", "POST", "/db/1/counter/a?add="+c.add, accept)
	}
	r.want(200, `{"value":-9007199254740993,"text":"-9007199254740993"}`+"\n", "GET", "/db/1/counter/a", accept)
	r.want(200, "-9007199254740993\n", "GET", "/db/1/counter/a")
}

// Proxies and browsers must not cache answers, which may change at any moment.
func TestAnswersAreNotStored(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Metrics = http.NotFoundHandler() })
	r.stored(r.put("/db/1/kv/a", "v"))
	for _, c := range []struct {
		method, target string
		value          bool
	}{
		{"POST", "/db/1/sequence/a", false},
		{"GET", "/db/1/sequence/a", false},
		{"GET", "/db/1/sequence/b", false},
		{"DELETE", "/db/1/sequence/a", false},
		{"POST", "/db/1/lock/a", false},
		{"GET", "/db/1/lock/a", false},
		{"POST", "/db/1/lock/a?x=1", false},
		{"GET", "/healthz", false},
		{"GET", "/metrics", false},
		{"GET", "/nothing", false},
		{"PUT", "/db/1/sequence/a", false},
		{"GET", "/db/1/kv/b", false},
		{"GET", "/db/1/kv/a", true},
		{"HEAD", "/db/1/kv/a", true},
		{"DELETE", "/db/1/kv/a", false},
	} {
		a := r.do(c.method, c.target)
		if stored := a.header.Get("Cache-Control") != "no-store" || a.header.Get("Vary") != "Accept"; stored != c.value {
			t.Errorf("%s %s: %v", c.method, c.target, a)
		}
	}
}

func FuzzAccept(f *testing.F) {
	for _, s := range []string{"*/*", "application/json", "application/json;q=0.5, text/plain", "text/plain;q=0", ";q=1,,", "application/json; q = 0.001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		r := &http.Request{Header: http.Header{"Accept": {accept}}}
		got := (&call{r: r}).wantsJSON()
		lower := strings.ToLower(accept)
		if got && !strings.Contains(lower, "application/json") {
			t.Fatalf("%q is answered with JSON", accept)
		}
		if !got && strings.HasPrefix(lower, "application/json,") {
			t.Fatalf("%q is answered with text", accept)
		}
		// Further media types with a lower q, or of neither kind, change nothing.
		r.Header["Accept"] = []string{accept, "text/html", "text/plain;q=0"}
		if (&call{r: r}).wantsJSON() != got {
			t.Fatalf("%q is another with more behind it", accept)
		}
	})
}

func TestAccept(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "text/plain": false, "application/*": false, "application/jsonx": false, "x/application/json": false,
		"application/json": true, "Application/JSON": true, "text/html, application/json;q=0.1": true,
		"application/json, text/plain, */*": true, "text/plain, application/json": false, "text/plain;q=0.9, application/json": true,
		"application/json;q=0.5, text/plain": false, "application/json;q=0.51,text/plain;q=0.5": true, "application/json;q=0.001": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": false, "text/plain;q=0, application/json;q=0.1": true,
		"application/json;q=1.000, text/plain": true, "application/json;q=0.5, text/plain;q=0.500": true, "application/json ; charset=utf-8": true,
		"application/json;q=0": false, "application/json; q=0.000": false, "application/json;v=1;Q=0": false, "application/json;q=x": true,
		"application/json;q=0, application/json": true, ", ,application/json,": true, ";": false, "application/problem+json": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		if got := (&call{r: r}).wantsJSON(); got != want {
			t.Errorf("%q: got %v", accept, got)
		}
	}
	two := httptest.NewRequest("GET", "/", nil)
	two.Header["Accept"] = []string{"text/plain;q=0.5", "application/json"}
	if !(&call{r: two}).wantsJSON() {
		t.Error("a second line of Accept is not read")
	}
}

// Each error of the database has its status, and no answer shows internals.
func TestStatusOfEachDatabaseError(t *testing.T) {
	secret := errors.New("open /var/data/log/00000001.seg: input/output error")
	expires := time.Date(2026, 11, 22, 11, 0, 0, 123e6, time.FixedZone("", 3600))
	for _, c := range []struct {
		err    error
		status int
		header http.Header
		line   string
	}{
		{db.ErrNotFound, 404, nil, `there is no kv "a" of account "1"`},
		{&db.ConflictError{Reason: "lost\nthe race"}, 409, nil, "lost the race"},
		{fmt.Errorf("%w: %w", db.ErrFull, secret), 507, nil, db.ErrFull.Error()},
		{db.ErrStopping, 503, http.Header{"Retry-After": {"1"}}, db.ErrStopping.Error()},
		{db.ErrWaiters, 503, http.Header{"Retry-After": {"1"}}, db.ErrWaiters.Error()},
		{fmt.Errorf("%w: %w", db.ErrStopped, secret), 503, http.Header{"Retry-After": {"1"}}, db.ErrStopped.Error()},
		{fmt.Errorf("%w: %w", db.ErrUnknown, secret), 503, http.Header{"Retry-After": {"1"}}, db.ErrUnknown.Error()},
		{secret, 500, nil, "internal error: see the server's log"},
		{fmt.Errorf("%w: %w", db.ErrDamaged, secret), 500, nil, `kv "a" of account "1" is damaged on disk: see the server's log`},
		{&db.HeldError{Reason: "held"}, 409, nil, "held"},
		{
			&db.HeldError{Reason: "held", Holder: db.Holder{Token: 7, TTL: 1500 * time.Millisecond, Expires: expires}}, 409,
			http.Header{"Lock-Expires": {"2026-11-22T10:00:00.123Z"}, "Retry-After": {"2"}}, "held",
		},
		{
			&db.HeldError{Reason: "held", Holder: db.Holder{Owner: "a b/ü+~\n", Token: 7, TTL: -time.Second, Expires: expires}}, 409,
			http.Header{"Lock-Id": {"a%20b%2F%C3%BC%2B~%0A"}, "Lock-Expires": {"2026-11-22T10:00:00.123Z"}, "Retry-After": {"1"}}, "held",
		},
	} {
		log := new(syncBuffer)
		s := New(Options{Log: slogTo(log)}).(*server)
		w := httptest.NewRecorder()
		k := call{w: w, r: httptest.NewRequest("GET", "/", nil), ask: ask{api: KV, key: db.Key{Acc: "1", ID: "a"}}}
		s.refuse(&k, c.err)
		s.send(&k)
		if w.Code != c.status || w.Body.String() != c.line+"\n" {
			t.Errorf("%v: got %d %q", c.err, w.Code, w.Body)
		}
		for _, always := range []string{"Content-Type", "Vary", "Cache-Control"} {
			if w.Header().Get(always) == "" {
				t.Errorf("%v: there is no header %s", c.err, always)
			}
			w.Header().Del(always)
		}
		if len(w.Header())+len(c.header) > 0 && !reflect.DeepEqual(w.Header(), c.header) {
			t.Errorf("%v: the headers are %v, want %v", c.err, w.Header(), c.header)
		}
		if logged := strings.Contains(log.String(), secret.Error()); logged != (c.status == 500) {
			t.Errorf("%v: the log says %q", c.err, log)
		}
	}
}

func TestPanicIs500InOneLine(t *testing.T) {
	r := newRig(t, nil)
	swap(t, Sequence, "POST", func(*server, *call) error { panic("oops in /secret/path") })
	swap(t, Sequence, "GET", func(s *server, c *call) error {
		if err := c.sayNumber(5); err != nil {
			return err
		}
		s.send(c)
		panic("too late")
	})
	a := r.do("POST", "/db/1/sequence/a")
	r.checkRefusal(a, 500, "internal error: see the server's log", "a panic")
	if o := r.observe(); o != (observed{Sequence, "POST", 500}) {
		t.Errorf("observed %v", o)
	}
	if log := r.log.String(); !strings.Contains(log, "oops in") || !strings.Contains(log, "answer_test.go") {
		t.Errorf("the log has no stack: %s", log)
	}
	// If the answer has begun, the connection is cut off in the middle of it.
	c := r.dial()
	if _, err := io.WriteString(c, request("GET", "/db/1/sequence/a", "")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("got %q %v", b, err)
	}
	if o := r.observe(); o != (observed{Sequence, "GET", 500}) {
		t.Errorf("observed %v", o)
	}
	r.want(200, "1\n", "POST", "/db/1/counter/a")
}

func TestEachRequestIsObserved(t *testing.T) {
	r := newRig(t, func(o *Options, h *http.Server) {
		guarded(o, h)
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	})
	for _, c := range []struct {
		method, target, auth string
		want                 observed
	}{
		{"POST", "/db/1/sequence/a", bear("all"), observed{Sequence, "POST", 200}},
		{"HEAD", "/db/1/counter/a", bear("all"), observed{Counter, "HEAD", 404}},
		{"DELETE", "/db/1/lock/a", bear("all"), observed{Lock, "DELETE", 204}},
		{"POST", "/db/1/mlock/a?x=1", bear("all"), observed{MLock, "POST", 400}},
		{"POST", "/db/1/munlock/a", bear("no"), observed{MUnlock, "POST", 401}},
		{"PUT", "/db/1/kv/a", bear("reader"), observed{KV, "PUT", 403}},
		{"BREW", "/db/1/kv/a", bear("all"), observed{KV, "other", 405}},
		{"GET", "/db/1/made/up", bear("all"), observed{Other, "GET", 404}},
		{"GET", "/healthz", bear("all"), observed{Healthz, "GET", 200}},
		{"GET", "/metrics", bear("all"), observed{Metrics, "GET", 418}},
	} {
		r.do(c.method, c.target, c.auth)
		if got := r.observe(); got != c.want {
			t.Errorf("%s %s: observed %v, want %v", c.method, c.target, got, c.want)
		}
	}
	var names []string
	for a := Other; a <= Metrics; a++ {
		names = append(names, a.String())
	}
	if got := strings.Join(names, " "); got != "other sequence counter kv mlock munlock lock rate tfstate batch list accounts events page healthz backup move movedata openapi replica replica/status replica/promote metrics" {
		t.Errorf("the APIs are called %s", got)
	}
}

func TestMetricsAreServedByTheirHandler(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/x")
			if _, err := io.WriteString(w, "up 1\n"); err != nil {
				t.Error(err)
			}
		})
	})
	a := r.want(200, "up 1\n", "GET", "/metrics")
	if a.header.Get("Content-Type") != "text/x" {
		t.Errorf("got %v", a)
	}
	r.refused(400, "unknown parameter", "GET", "/metrics?x=1")
}

// blank is a connection that allocates nothing.
type blank struct{ header http.Header }

func (b *blank) Header() http.Header { return b.header }

func (b *blank) Write(p []byte) (int, error) { return len(p), nil }

func (b *blank) WriteHeader(int) {}

// A request for a number allocates no memory in this package.
func TestHotPathAllocatesNothing(t *testing.T) {
	swap(t, Sequence, "POST", func(s *server, c *call) error {
		if n := c.params.number("n", 1, 1, db.MaxBlock); c.params.bad == nil {
			return c.sayNumber(n)
		}
		return c.params.bad
	})
	seen := 0
	h := New(Options{
		DB:      new(db.DB),
		Tokens:  NewTokens(Token{Token: "one"}, Token{Token: "a token of more than thirty-two bytes", Accounts: []string{"2", "shop"}}),
		Observe: func(API, string, int, time.Duration) { seen++ },
	})
	for _, target := range []string{"/db/shop/sequence/invoice?n=100", "/db/shop/sequence/a%20b"} {
		r := httptest.NewRequest("POST", target, nil)
		r.Header.Set("Authorization", "Bearer a token of more than thirty-two bytes")
		r.Header.Set("Accept", "*/*")
		w := &blank{http.Header{}}
		n := math.Inf(1)
		for try := 0; try < 20 && n > 0; try++ { // goroutines that earlier tests have left allocate too
			n = min(n, testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) }))
		}
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", target, n)
		}
		if w.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("the headers are %v", w.header)
		}
	}
	if seen < 400 {
		t.Errorf("%d requests were observed", seen)
	}
}
