package handlers

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"clouddragon/db"
)

// locate parses the path. It sets the API, which is Other if there is no such route, and
// the key. An invalid name is kept in c.fault, because the token is checked first.
//
// The path is used as it was sent: %2F is part of a name, and nothing is cleaned. That is
// RawPath if net/url has set it. Otherwise Path has the slashes of the request.
func (c *call) locate(u *url.URL) {
	path, escaped := u.RawPath, true
	if path == "" {
		path, escaped = u.Path, false
	}
	switch path {
	case "/":
		c.api = Page
		return
	case "/healthz":
		c.api = Healthz
		return
	case "/db":
		c.api = Accounts
		return
	case "/openapi.json":
		c.api = OpenAPI
		return
	case "/backup":
		c.api = Backup
		return
	case "/metrics":
		c.api = Metrics
		return
	case "/move":
		c.api = Move
		return
	case "/movedata":
		c.api = MoveData
		return
	case "/replica/status":
		c.api = ReplicaStatus
		return
	case "/replica/promote":
		c.api = Promote
		return
	}
	if strings.HasPrefix(path, "/replica/") {
		c.api = Replica
		return
	}
	path, ok := strings.CutPrefix(path, "/db/")
	if !ok {
		return
	}
	acc, path, _ := strings.Cut(path, "/")
	if acc == "" {
		return
	}
	c.inAccount = true
	c.key.Acc, c.fault = name("account", acc, escaped, db.MaxAcc)
	switch path {
	case "batch":
		c.api = Batch
		return
	case "events":
		c.api = Events
		return
	}
	api, id, below := strings.Cut(path, "/")
	if kind := keyedAPI(api); !below && isListable(kind) {
		c.api, c.of = List, kind
		return
	}
	if id == "" || strings.Contains(id, "/") {
		return
	}
	if c.api = keyedAPI(api); c.api == Other {
		return
	}
	var err error
	if c.key.ID, err = name("id", id, escaped, db.MaxID); c.fault == nil {
		c.fault = err
	}
}

// keyedAPI returns the API that has a name in paths below an account, or Other.
func keyedAPI(name string) API {
	for api := firstKeyed; api <= lastKeyed; api++ {
		if apiNames[api] == name {
			return api
		}
	}
	return Other
}

// isListable reports whether the things of an API can be listed.
func isListable(api API) bool {
	_, ok := listKinds[api]
	return ok
}

// paths returns the routes of an endpoint with the given placeholders for account and id.
func (e *endpoint) paths(acc, id string) []string {
	switch api := e.api; {
	case api >= firstKeyed && api <= lastKeyed:
		return []string{"/db/" + acc + "/" + api.String() + "/" + id}
	case api == List:
		var all []string
		for of := firstKeyed; of <= lastKeyed; of++ {
			if isListable(of) {
				all = append(all, "/db/"+acc+"/"+of.String())
			}
		}
		return all
	case api == Accounts:
		return []string{"/db"}
	case api == Page:
		return []string{"/"}
	case api == OpenAPI:
		return []string{"/openapi.json"}
	case api == Batch, api == Events:
		return []string{"/db/" + acc + "/" + api.String()}
	default:
		return []string{"/" + api.String()}
	}
}

// name decodes and checks one segment of a path, which is not empty. It returns the name
// even with an error.
func name(what, segment string, escaped bool, limit int) (string, error) {
	if escaped {
		var err error
		raw := segment
		if segment, err = url.PathUnescape(raw); err != nil {
			return raw, badRequest("the %s in the path has a bad percent escape: %s", what, quote(raw))
		}
	}
	switch {
	case len(segment) > limit:
		return segment, badRequest("the %s in the path has %d bytes: it may have 1 to %d", what, len(segment), limit)
	case segment == "." || segment == "..":
		return segment, badRequest("the %s in the path may not be %q: clients rewrite such paths", what, segment)
	case strings.IndexByte(segment, 0) >= 0:
		return segment, badRequest("the %s in the path holds a NUL byte: %s", what, quote(segment))
	}
	return segment, nil
}

// noRoute refuses a path that is not a route. It names a missing id or account, because
// that happens if a variable of a script is empty.
func (c *call) noRoute() error {
	keyed := apiNames[firstKeyed : lastKeyed+1]
	want := "want /db/ACCOUNT/API/ID, with an API out of " + strings.Join(keyed[:len(keyed)-1], ", ") + " and " + keyed[len(keyed)-1]
	line := "no such route: " + want
	parts := strings.Split(c.r.URL.EscapedPath(), "/")
	if len(parts) == 5 && parts[0] == "" && parts[1] == "db" && slices.Contains(keyed, parts[3]) {
		switch {
		case parts[2] == "":
			line = "no such route: the account is empty: " + want
		case parts[4] == "":
			line = "no such route: the id is empty: " + want
		}
	}
	return &refusal{http.StatusNotFound, line}
}

// thing names the subject of the path, for an error line.
func (a *ask) thing() string {
	return fmt.Sprintf("%s %s of account %s", a.api, quote(a.key.ID), quote(a.key.Acc))
}
