package handlers

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"clouddragon/internal/units"
)

// kind is the type of a parameter in JSON. In a query or a form all are text.
type kind uint8

const (
	number kind = iota // a number, a duration, or a word such as none: JSON number or string
	text
	flag
)

// String names the JSON types of the kind, for an error line.
func (k kind) String() string {
	return [...]string{"a number or a string", "a string", "true or false"}[k]
}

// kinds has the parameters of all endpoints that are not numbers.
var kinds = map[string]kind{"id": text, "ID": text, "lock": text, "prefix": text, "api": text, "after": text, "account": text, "step": text, "peer": text, "attempt": text, "force": flag, "shared": flag, "touch": flag, "stale": flag}

func kindOf(name string) kind { return kinds[name] }

// place is where a parameter is given.
type place uint8

const (
	inQuery place = iota
	inBody
)

// maxParams is the largest number of parameters of an endpoint.
const maxParams = 12

// params are the parameters of a call. They are checked strictly: a typo must not
// silently mean the default. Reading a bad parameter sets bad, and its result is
// meaningless. A handler reads all parameters and then checks bad once.
type params struct {
	names  []string          // the parameters of the endpoint
	values [maxParams]string // in the order of names; empty: not given
	places [maxParams]place  // where each is given
	place  place             // where the one being parsed is given
	bad    error
}

// parse parses a query or a form.
func (p *params) parse(query string) error {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return badRequest("a parameter's name has a bad percent escape: %s", quote(rawName))
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil && slices.Contains(p.names, name) {
			return badRequest("%s has a bad percent escape: %s", name, quote(rawValue))
		}
		if err := p.take(name, value); err != nil {
			return err
		}
	}
	return nil
}

// take notes one parameter.
func (p *params) take(name, value string) error {
	i := slices.Index(p.names, name)
	switch {
	case i < 0:
		return badRequest("unknown parameter %s: %s", quote(name), known(p.names))
	case value == "":
		return badRequest("%s is empty", name)
	case p.values[i] != "" && p.places[i] == p.place:
		return badRequest("%s is given twice", name)
	case p.values[i] != "":
		return badRequest("%s is given twice: in the query and in the body", name)
	}
	p.values[i], p.places[i] = value, p.place
	return nil
}

func known(names []string) string {
	if len(names) == 0 {
		return "this call takes none"
	}
	return "this call takes " + strings.Join(names, ", ")
}

// text returns a parameter, or "" if it is not given. It panics if the endpoint does not
// list the parameter.
func (p *params) text(name string) string {
	return p.values[slices.Index(p.names, name)]
}

// number returns a whole number from low to high, or def if the parameter is not given.
func (p *params) number(name string, def, low, high int64) int64 {
	s := p.text(name)
	if s == "" {
		return def
	}
	n, ok := parseNumber(s)
	if !ok || n < low || n > high {
		p.fail(badRequest("%s must be a whole number from %d to %d, not %s", name, low, high, quote(s)))
	}
	return n
}

// duration returns a duration of at most limit, or def if the parameter is not given. Zero
// is refused unless zero is true.
func (p *params) duration(name string, def, limit time.Duration, zero bool) time.Duration {
	s := p.text(name)
	if s == "" {
		return def
	}
	d, ok := units.ParseDuration(s)
	if !ok || d > limit || d == 0 && !zero {
		low := "more than 0"
		if zero {
			low = "at least 0"
		}
		p.fail(badRequest("%s must be a duration such as 0.5, 500ms, 30s, 15m or 24h, %s and at most %s, not %s",
			name, low, units.FormatDuration(limit), quote(s)))
	}
	return d
}

// owner returns the name of a lock's holder, of at most limit bytes.
func (p *params) owner(name string, limit int) string {
	s := p.text(name)
	if len(s) > limit {
		p.fail(badRequest("%s has %d bytes: it may have 1 to %d", name, len(s), limit))
	}
	return s
}

// flag returns whether a parameter is given as "true".
func (p *params) flag(name string) bool {
	s := p.text(name)
	if s != "" && s != "true" && s != "false" {
		p.fail(badRequest("%s must be true or false, not %s", name, quote(s)))
	}
	return s == "true"
}

// fail keeps the first fault.
func (p *params) fail(err error) {
	if p.bad == nil {
		p.bad = err
	}
}

// parseNumber parses a decimal int64: digits with an optional minus.
func parseNumber(s string) (int64, bool) {
	if strings.HasPrefix(s, "+") {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// maxEcho is how many bytes of a request are quoted in an error line.
const maxEcho = 64

// quote quotes a client's input for an error line: printable, on one line, and not too
// long.
func quote(s string) string {
	if len(s) > maxEcho {
		return strconv.Quote(s[:maxEcho]) + "…"
	}
	return strconv.Quote(s)
}
