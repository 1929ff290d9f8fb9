package handlers

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestOpenAPIIsTheTableOfRoutes compares the server's OpenAPI description with the table of
// endpoints. Reading it needs no token.
func TestOpenAPIIsTheTableOfRoutes(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Tokens = NewTokens(Token{Token: "secret"}) })
	a := r.want(200, "*", "GET", "/openapi.json")
	if a.header.Get("Content-Type") != "application/json" {
		t.Error(a.header)
	}
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]struct {
			Parameters []struct {
				Name, In string
				Required bool
				Schema   map[string]any
			}
			Responses map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.0.3" || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("got %s, %+v", doc.OpenAPI, doc.Info)
	}
	want, got := 0, 0
	for i := range endpoints {
		e := &endpoints[i]
		for _, path := range e.paths("{acc}", "{id}") {
			if !hasOperation(e.method) {
				continue
			}
			want++
			op, ok := doc.Paths[path][strings.ToLower(e.method)]
			if !ok {
				t.Errorf("%s %s is not told of", e.method, path)
				continue
			}
			in := map[string]int{}
			for _, p := range op.Parameters {
				in[p.In]++
				if p.In == "path" && (!p.Required || !strings.Contains(path, "{"+p.Name+"}")) {
					t.Errorf("%s %s: %+v", e.method, path, p)
				}
			}
			if in["query"] != len(e.params) || in["path"] != strings.Count(path, "{") || op.Responses["200"].Description+op.Responses["204"].Description == "" {
				t.Errorf("%s %s: %+v", e.method, path, op)
			}
		}
	}
	for _, ops := range doc.Paths {
		got += len(ops)
	}
	if got != want {
		t.Errorf("it tells of %d calls, the table has %d", got, want)
	}
}

// TestOpenAPITellsOfEverySuccess looks the status of real answers up in the description.
func TestOpenAPITellsOfEverySuccess(t *testing.T) {
	r := newRig(t, nil)
	var doc struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.Unmarshal([]byte(r.want(200, "*", "GET", "/openapi.json").body), &doc); err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(r.want(200, "*", "PUT", "/db/1/kv/a").body)
	r.want(200, "*", "POST", "/db/1/counter/a")
	for _, c := range []struct {
		status               int
		method, target, path string
	}{
		{200, "GET", "/db/1/kv/a", "/db/{acc}/kv/{id}"},
		{304, "GET", "/db/1/kv/a?wait=0&not=" + version, "/db/{acc}/kv/{id}"},
		{304, "GET", "/db/1/counter/a?wait=0&not=1", "/db/{acc}/counter/{id}"},
		{304, "GET", "/db/1/sequence/a?wait=0&not=none", "/db/{acc}/sequence/{id}"},
		{304, "GET", "/db/1/lock/a?wait=0&not=none", "/db/{acc}/lock/{id}"},
		{304, "GET", "/db/1/mlock/a?wait=0&not=none", "/db/{acc}/mlock/{id}"},
		{204, "POST", "/db/1/munlock/a", "/db/{acc}/munlock/{id}"},
		{204, "DELETE", "/db/1/kv/a", "/db/{acc}/kv/{id}"},
		{204, "DELETE", "/db/1/counter/a", "/db/{acc}/counter/{id}"},
		{204, "DELETE", "/db/1/lock/a", "/db/{acc}/lock/{id}"},
		{204, "DELETE", "/db/1/rate/a", "/db/{acc}/rate/{id}"},
		{200, "DELETE", "/db/1/tfstate/a", "/db/{acc}/tfstate/{id}"},
	} {
		r.want(c.status, "*", c.method, c.target)
		told := doc.Paths[c.path][strings.ToLower(c.method)].Responses
		if _, ok := told[strconv.Itoa(c.status)]; !ok || c.status != 200 && c.method != "GET" && told["200"] != nil {
			t.Errorf("%s %s answers %d, the description has %v", c.method, c.target, c.status, told)
		}
	}
}
