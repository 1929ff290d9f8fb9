package handlers

import (
	"os"
	"strings"
	"testing"
)

// TestApiDocNamesEveryRouteAndParameter finds routes and parameters that docs/api.md does not
// describe.
func TestApiDocNamesEveryRouteAndParameter(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(b), "\n## ")
	for _, e := range endpoints {
		for _, route := range e.paths(":acc", ":id") {
			checkRoute(t, sections, e, route)
		}
	}
}

// checkRoute looks for a route and its parameters in the sections that name it.
func checkRoute(t *testing.T, sections []string, e endpoint, route string) {
	t.Helper()
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
			t.Errorf("docs/api.md does not describe the parameter %s of %s %s", name, e.method, route)
		}
	}
}
