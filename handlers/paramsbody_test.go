package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	asForm = "Content-Type: " + form
	asJSON = "Content-Type: " + jsonType
)

// send sends a request with a body.
func (r *rig) send(method, target, body string, headers ...string) reply {
	r.t.Helper()
	return r.raw(method, request(method, target, body, headers...))
}

func (r *rig) sent(status int, want string, a reply) {
	r.t.Helper()
	if a.status != status || a.body != want {
		r.t.Errorf("got %v, want %d %q", a, status, want)
	}
}

func TestParametersInABody(t *testing.T) {
	r := newRig(t, nil)
	const sequence, counter, lock, value = "/db/1/sequence/a", "/db/1/counter/a", "/db/1/lock/a", "/db/1/kv/a"
	r.sent(200, "100\n", r.send("POST", sequence, "n=100", asForm))
	r.sent(200, "200\n", r.send("POST", sequence, `{"n":100}`, asJSON))
	r.sent(200, "300\n", r.send("POST", sequence, ` { "n" : "100" } `, "Content-Type: Application/JSON; charset=utf-8"))
	r.sent(200, "400\n", r.send("POST", sequence, "%6e=10%30&", "Content-Type: Application/X-WWW-Form-Urlencoded;charset=UTF-8"))
	r.sent(200, "500\n", r.send("POST", sequence, "a\r\n{\"n\": 100}\r\n0\r\n\r\n", asJSON, "Transfer-Encoding: chunked"))
	r.sent(200, "5\n", r.send("POST", counter+"?min=0", "add=5&max=9", asForm))
	r.sent(200, "4\n", r.send("POST", counter, `{"add":-1,"min":"0","max":9}`, asJSON))

	token := r.granted(r.send("POST", lock, `{"id":"a\"b\u00e9\ud83d\ude00","dur":"1h"}`, asJSON))
	if h := r.holder(lock); *h.ID != "a\"bé😀" || h.Token != token || h.TTL < 3000 {
		t.Errorf("held by %+v", h)
	}
	r.granted(r.send("POST", lock, fmt.Sprintf(`{"token":%d,"dur":100.5}`, token), asJSON))
	if h := r.holder(lock); h.TTL > 101 {
		t.Errorf("held by %+v", h)
	}
	r.sent(204, "", r.send("DELETE", lock, `{"force":true}`, asJSON))
	r.granted(r.do("POST", lock+"?id=x"))
	r.checkRefusal(r.send("DELETE", lock, `{"force":false}`, asJSON), 409, "was locked with an id", "no force")
	r.sent(204, "", r.send("DELETE", lock, "force=true", asForm))
	r.granted(r.send("POST", "/db/1/mlock/a", "id=me&wait=0", asForm))
	r.sent(204, "", r.send("POST", "/db/1/munlock/a", `{"id":"me"}`, asJSON))

	version := strings.TrimSuffix(r.put(value, "v=1", asForm).body, "\n")
	r.checkRefusal(r.send("DELETE", value, `{"ver":999}`, asJSON), 409, "version", "another version")
	if a := r.do("GET", value); a.body != "v=1" {
		t.Errorf("the value is %v", a)
	}
	r.sent(204, "", r.send("DELETE", value, "ver="+version, asForm))
}

// An empty body, of whatever type, and an empty object have no parameters.
func TestBodiesWithoutParameters(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	for _, headers := range [][]string{{}, {asForm}, {asJSON}, {"Content-Type: text/plain"}, {"Content-Type: " + multipart}} {
		r.sent(200, "1\n", r.send("GET", "/db/1/sequence/a", "", headers...))
		r.sent(200, "1\n", r.send("GET", "/db/1/sequence/a", "0\r\n\r\n", append(headers, "Transfer-Encoding: chunked")...))
	}
	for _, target := range []string{"/db/1/sequence/a", "/healthz"} {
		for _, body := range []string{"{}", " {\n} \n"} {
			if a := r.send("GET", target, body, asJSON); a.status != 200 {
				t.Errorf("%s %q: %v", target, body, a)
			}
		}
	}
	if a := r.send("GET", "/db/1/sequence/a", "&", asForm); a.status != 200 {
		t.Errorf("an empty form: %v", a)
	}
}

// A client that sends a parameter in a way that is not understood has to be refused: otherwise
// a DELETE with ver=999 would delete any version.
func TestBodiesThatAreNoParametersAreRefused(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Metrics = http.NotFoundHandler() })
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	r.want(200, "1\n", "POST", "/db/1/counter/a")
	r.stored(r.put("/db/1/kv/a", "v"))
	calls := []struct{ method, target string }{
		{"POST", "/db/1/sequence/a"}, {"GET", "/db/1/sequence/a"}, {"HEAD", "/db/1/sequence/a"}, {"DELETE", "/db/1/sequence/a"},
		{"POST", "/db/1/counter/a"}, {"DELETE", "/db/1/counter/a"}, {"GET", "/db/1/kv/a"}, {"DELETE", "/db/1/kv/a"},
		{"POST", "/db/1/lock/a"}, {"GET", "/db/1/lock/a"}, {"DELETE", "/db/1/lock/a"}, {"POST", "/db/1/mlock/a"}, {"POST", "/db/1/munlock/a"},
		{"GET", "/healthz"}, {"GET", "/metrics"}, {"OPTIONS", "/healthz"},
	}
	for _, c := range []struct{ body, part string }{
		{"X: y", "no Content-Type"},
		{"Content-Type: text/plain", `"text/plain" is not read`},
		{"Content-Type: application/json-seq", "is not read"},
		{"Content-Type: " + multipart + "; boundary=a", "not curl -F"},
		{asForm, `unknown parameter "x"`},
	} {
		for _, call := range calls {
			a := r.send(call.method, call.target, "x=1", c.body)
			if call.method == "HEAD" {
				if a.status != 400 {
					t.Errorf("HEAD: %v", a)
				}
				continue
			}
			r.checkRefusal(a, 400, c.part, call.method+" "+call.target)
		}
	}
	for _, c := range []struct{ body, part string }{
		{`{"n":5,"n":5}`, "n is given twice"},
		{`{"n":5,"\u006e":6}`, "n is given twice"},
		{`{"m":5}`, `unknown parameter "m"`},
		{`{"N":5}`, `unknown parameter "N"`},
		{`{"":5}`, `unknown parameter ""`},
		{`{"m":{"n":5}}`, `unknown parameter "m"`},
		{`{"n":{}}`, "n must be a number or a string"},
		{`{"n":[5]}`, "n must be a number or a string"},
		{`{"n":true}`, "n must be a number or a string"},
		{`{"n":null}`, "n must be a number or a string"},
		{`{"n":""}`, "n is empty"},
		{`{"n":" 5"}`, "n must be a whole number"},
		{`{"n":5.0}`, "n must be a whole number"},
		{`{"n":5e0}`, "n must be a whole number"},
		{`{"n":1e400}`, "n must be a whole number"},
		{`{"n":` + strings.Repeat("9", 10000) + `}`, "n must be a whole number"},
		{`{"n":05}`, "malformed"},
		{`{"n":+5}`, "malformed"},
		{`{"n":NaN}`, "malformed"},
		{`{"n":5,}`, "malformed"},
		{`{'n':5}`, "malformed"},
		{`{n:5}`, "malformed"},
		{`{"n" 5}`, "malformed"},
		{`{"n":5 "m":6}`, "malformed"},
		{`{"n":5`, "ends too early"},
		{`{"n"`, "ends too early"},
		{`{`, "ends too early"},
		{` `, "ends too early"},
		{`{"n":5}{}`, "more after the JSON"},
		{`{"n":5}]`, "more after the JSON"},
		{`{"n":5} x`, "more after the JSON"},
		{`[{"n":5}]`, "must be an object"},
		{`5`, "must be an object"},
		{`"n"`, "must be an object"},
		{`null`, "must be an object"},
		{"{\"n\":\"\xff\"}", "not valid UTF-8"},
		{"\xef\xbb\xbf{}", "malformed"},
		{`{"n":"\ud800"}`, "half of a surrogate pair"},
		{`{"n":"\ude00\ud83d"}`, "half of a surrogate pair"},
		{`{"n":"\\\ud83dx"}`, "half of a surrogate pair"},
		{strings.Repeat(`{"n":`, 100_000), "n must be a number or a string"},
	} {
		r.checkRefusal(r.send("POST", "/db/1/sequence/a", c.body, asJSON), 400, c.part, c.body)
	}
	for _, c := range []struct{ body, part string }{
		{`{"id":5}`, "id must be a string"},
		{`{"id":true}`, "id must be a string"},
		{`{"id":null}`, "id must be a string"},
		{`{"force":"true"}`, "force must be true or false"},
		{`{"force":1}`, "force must be true or false"},
		{`{"force":null}`, "force must be true or false"},
	} {
		r.checkRefusal(r.send("DELETE", "/db/1/lock/a", c.body, asJSON), 400, c.part, c.body)
	}
	for _, body := range []string{"n=5&n=5", "n", "n=", "n=%zz", "n=5\n", `{"n":5}`, "n=+5"} {
		r.checkRefusal(r.send("POST", "/db/1/sequence/a", body, asForm), 400, "", body)
	}
	r.want(200, "1\n", "GET", "/db/1/sequence/a")
	r.want(200, "1\n", "GET", "/db/1/counter/a")
	r.want(200, "v", "GET", "/db/1/kv/a")
	r.refused(404, "is not locked", "GET", "/db/1/lock/a")
}

func TestParameterInTheQueryAndInTheBodyIsRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range [][2]string{{"n=5", asForm}, {`{"n":5}`, asJSON}, {"n=6", asForm}} {
		r.checkRefusal(r.send("POST", "/db/1/sequence/a?n=5", c[0], c[1]), 400, "n is given twice: in the query and in the body", c[0])
	}
	r.refused(404, "there is no sequence", "GET", "/db/1/sequence/a")
}

func TestLongBodyOfParametersIsRefused(t *testing.T) {
	r := newRig(t, nil)
	most := "n=5" + strings.Repeat("&", maxParamsBody-3)
	for _, headers := range [][]string{{asForm}, {}, {"Content-Type: image/png"}} {
		for _, target := range []string{"/db/1/sequence/a", "/db/1/lock/a?wait=1", "/db/1/mlock/a"} {
			r.checkRefusal(r.send("POST", target, most+"&", headers...), 413, "the limit is 1048576 bytes", target)
		}
	}
	r.sent(200, "5\n", r.send("POST", "/db/1/sequence/a", most, asForm))
	r.sent(200, "10\n", r.send("POST", "/db/1/sequence/a", `{"n":5`+strings.Repeat(" ", maxParamsBody-7)+"}", asJSON))
}

// A parameter on which the tables disagree could never be given in JSON.
func TestEachParameterHasAPlaceAndAKind(t *testing.T) {
	known := map[string]bool{}
	for _, e := range endpoints {
		if len(e.params) > maxParams {
			t.Errorf("%s %s has %d parameters, and there is room for %d", e.method, e.api, len(e.params), maxParams)
		}
		for _, name := range e.params {
			known[name] = true
		}
	}
	for name := range kinds {
		if !known[name] {
			t.Errorf("no endpoint knows the parameter %s", name)
		}
	}
}

func FuzzJSONParams(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"add":5,"id":"a"}`, `{"add":"5","force":true}`, `{"add":5,"add":6}`, `{"id":"\ud83d\ude00"}`, `{"id":"\ud83d"}`, `{"id":5}`, `[]`, `{"add":5}x`,
		`{"id":"\\ud800"}`, `{"add":{}}`, `{"add":1e999}`, `{"force":null}`, "{\"id\":\"\x00\"}", ``, ` {"id" : "a" } `,
	} {
		f.Add([]byte(s))
	}
	names := []string{"add", "id", "force"}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := params{names: names, place: inBody}
		if err := p.parseJSON(body); err != nil {
			if line := err.Error(); oneLine(line) != line || len(line) > 600 || !utf8.ValidString(line) {
				t.Fatalf("the error line is %q", line)
			}
			return
		}
		want := map[string]any{}
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.UseNumber()
		if err := d.Decode(&want); err != nil || d.More() {
			t.Fatalf("%q is taken, but %v", body, err)
		}
		got := map[string]any{}
		for i, name := range names {
			switch v := p.values[i]; {
			case v == "":
			case name == "force":
				got[name] = v == "true"
			default:
				got[name] = v
			}
		}
		if n, ok := want["add"].(json.Number); ok {
			want["add"] = n.String()
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %v, want %v", body, got, want)
		}
	})
}
