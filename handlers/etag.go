package handlers

import (
	"strconv"
	"strings"

	"clouddragon/db"
)

// headerETag is sent as the standard writes it. Its canonical form is Etag.
var headerETag = "ETag"

// etag writes a version as an ETag.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// parseETags reads the lines of a header that lists entity tags:
//
//	tags = "*" | tag *( "," tag )
//	tag  = [ "W/" ] <"> characters <">
//
// A weak tag counts only where weak is true. It returns false if it is neither.
func parseETags(lines []string, weak bool) (e db.Versions, ok bool) {
	if len(lines) == 0 {
		return e, true
	}
	e.Given = true
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		e.Any = true
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
				e.List = append(e.List, v)
			}
		}
	}
	return e, ok
}

// conditions reads those of a request's headers.
func (c *call) conditions() (q db.Conditions, err error) {
	q.Check = db.AnyVersion
	for _, header := range [...]struct {
		name string
		weak bool
		tags *db.Versions
	}{
		{"If-Match", false, &q.Match},
		{"If-None-Match", true, &q.NoneMatch},
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

// notMatched says which header's condition does not hold, and why.
func (a *ask) notMatched(e *db.MatchError) string {
	header := "If-None-Match"
	if e.Match {
		header = "If-Match"
	}
	return header + " failed: " + a.at(e.Version)
}

// at says what version there is, for an error line.
func (a *ask) at(version int64) string {
	if version == 0 {
		return a.thing() + " has no value"
	}
	return a.thing() + " is at version " + strconv.FormatInt(version, 10)
}
