package handlers

import (
	"strconv"
	"strings"

	"clouddragon/db"
)

// headerETag is spelled as in the standard. Go's canonical form would be Etag.
var headerETag = "ETag"

// etag returns a version as an ETag.
func etag(version int64) string {
	b := make([]byte, 0, 24)
	return string(append(strconv.AppendInt(append(b, '"'), version, 10), '"'))
}

// parseETags parses the lines of a header that lists entity tags:
//
//	tags = "*" | tag *( "," tag )
//	tag  = [ "W/" ] <"> characters <">
//
// A weak tag counts only if weak is true. It returns false for a malformed header.
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

// conditions reads the conditions in the request's headers.
func (c *call) conditions() (q db.Conditions, err error) {
	q.Check = db.AnyVersion
	if c.r.Header["If-Match"] == nil && c.r.Header["If-None-Match"] == nil {
		return q, nil
	}
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

// notMatched returns a 412 that names the header and the reason.
func (a *ask) notMatched(e *db.MatchError) string {
	header := "If-None-Match"
	if e.Match {
		header = "If-Match"
	}
	return header + " failed: " + a.at(e.Version)
}

// at names the current version, for an error line.
func (a *ask) at(version int64) string {
	if version == 0 {
		return a.thing() + " has no value"
	}
	return a.thing() + " is at version " + strconv.FormatInt(version, 10)
}
