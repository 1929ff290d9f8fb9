package handlers

import (
	"encoding/json"
	"net/http"
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
			if in["query"] != len(e.params) || in["path"] != strings.Count(path, "{") || op.Responses["200"].Description == "" {
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
