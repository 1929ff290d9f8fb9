package handlers

import (
	"os"
	"strings"
	"testing"
)

// TestApiDocNamesEveryRouteAndParameter finds a route or a parameter that
// docs/api.md does not tell of.
func TestApiDocNamesEveryRouteAndParameter(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(b), "\n## ")
	for _, e := range endpoints {
		route := "/db/:acc/" + e.api.String() + "/:id"
		switch e.api {
		case Healthz, Metrics, Backup:
			route = "/" + e.api.String()
		case Batch:
			route = "/db/:acc/batch"
		}
		var text string // of all sections that name the route
		for _, s := range sections {
			if strings.Contains(s, route) {
				text += s
			}
		}
		if text == "" {
			t.Errorf("docs/api.md does not name the route %s", route)
		}
		for _, name := range e.params {
			if !strings.Contains(text, name+"=") && !strings.Contains(text, "`"+name+"`") {
				t.Errorf("docs/api.md does not tell of the parameter %s of %s %s", name, e.method, route)
			}
		}
	}
}
