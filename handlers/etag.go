package handlers

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"clouddragon/db"
)

// etag writes a version as an ETag.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// etags are what If-Match or If-None-Match lists.
type etags struct {
	given    bool
	any      bool    // *
	versions []int64 // the tags that can be a version; another never matches
}

// has says whether a value at version, 0 for none, is one of those listed.
func (e *etags) has(version int64) bool {
	return version != 0 && (e.any || slices.Contains(e.versions, version))
}

// parseETags reads the lines of a header that lists entity tags:
//
//	tags = "*" | tag *( "," tag )
//	tag  = [ "W/" ] <"> characters <">
//
// A weak tag counts only where weak is true. It returns false if it is neither.
func parseETags(lines []string, weak bool) (e etags, ok bool) {
	if len(lines) == 0 {
		return e, true
	}
	e.given = true
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		e.any = true
		return e, true
	}
	for _, rest := range lines {
		for rest = strings.TrimLeft(rest, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
			tag, isWeak := strings.CutPrefix(rest, "W/")
			tag, open := strings.CutPrefix(tag, `"`)
			tag, after, closed := strings.Cut(tag, `"`)
			rest = strings.TrimLeft(after, " \t")
			if !open || !closed || rest != "" && rest[0] != ',' {
				return e, false
			}
			ok = true
			v, isNumber := parseNumber(tag)
			if isNumber && tag == strconv.FormatInt(v, 10) && (weak || !isWeak) {
				e.versions = append(e.versions, v)
			}
		}
	}
	return e, ok
}

// conditions are what has to hold for a call on a value to be done.
type conditions struct {
	ver             int64 // of the parameter; db.AnyVersion: not given
	match, nonMatch etags
}

// conditions reads those of a request.
func (c *call) conditions(ver int64) (q conditions, err error) {
	q.ver = ver
	for _, header := range [...]struct {
		name string
		weak bool
		tags *etags
	}{
		{"If-Match", false, &q.match},
		{"If-None-Match", true, &q.nonMatch},
	} {
		var ok bool
		lines := c.r.Header[header.name]
		if *header.tags, ok = parseETags(lines, header.weak); !ok {
			return q, badRequest(`the header %s must be * or versions in double quotes such as "123", not %s`,
				header.name, quote(strings.Join(lines, ", ")))
		}
	}
	return q, nil
}

// check holds the conditions against the version that there is, 0 for none.
func (q *conditions) check(c *call, version int64) error {
	switch {
	case q.match.given && !q.match.has(version):
		return &refusal{http.StatusPreconditionFailed, "If-Match failed: " + c.at(version)}
	case q.nonMatch.has(version):
		return &refusal{http.StatusPreconditionFailed, "If-None-Match failed: " + c.at(version)}
	case q.ver != db.AnyVersion && q.ver != version:
		return &db.ConflictError{Reason: c.at(version) + ", not at ver=" + strconv.FormatInt(q.ver, 10)}
	}
	return nil
}

// at says what version there is, for an error line.
func (c *call) at(version int64) string {
	if version == 0 {
		return c.thing() + " has no value"
	}
	return c.thing() + " is at version " + strconv.FormatInt(version, 10)
}
