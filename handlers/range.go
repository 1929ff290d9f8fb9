package handlers

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"clouddragon/db"
)

// Header values of answers that have a value.
var (
	bytesUnit = []string{"bytes"}
	// If a browser opens a value, it must not run scripts in it.
	sandbox = []string{"sandbox"}
)

// span is a part of a value: the bytes from from up to but not including to.
type span struct{ from, to int }

// of returns the span as a Content-Range.
func (p span) of(size int) string { return fmt.Sprintf("bytes %d-%d/%d", p.from, p.to-1, size) }

// byteRange returns the part of a value that the request asks for. ok is false if the
// answer is the whole value: without a Range, with one of several parts, with a malformed
// one, or with an If-Range that names another version. The error is a 416.
func (c *call) byteRange(v db.Value) (part span, ok bool, err error) {
	lines := c.r.Header["Range"]
	if len(lines) != 1 {
		return span{}, false, nil
	}
	if condition := c.r.Header["If-Range"]; len(condition) > 0 && (len(condition) > 1 || condition[0] != etag(v.Version)) {
		return span{}, false, nil
	}
	from, to, ok := parseRange(lines[0], int64(v.Size))
	if !ok {
		return span{}, false, nil
	}
	if from >= to {
		c.w.Header()["Content-Range"] = []string{fmt.Sprintf("bytes */%d", v.Size)}
		return span{}, false, &refusal{http.StatusRequestedRangeNotSatisfiable,
			fmt.Sprintf("the Range %s lies past the end of %s, which has %d bytes", quote(lines[0]), c.thing(), v.Size)}
	}
	return span{int(from), int(to)}, true, nil
}

// parseRange parses a Range of one part of a value of size bytes. If from is not less
// than to, the part lies past the end.
//
//	range = "bytes=" ( first "-" [ last ] | "-" length )
func parseRange(text string, size int64) (from, to int64, ok bool) {
	unit, text, ok := strings.Cut(text, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(strings.Trim(text, " \t"), "-")
	if !ok {
		return 0, 0, false
	}
	begin, hasFirst := parsePlace(first)
	end, hasLast := parsePlace(last)
	switch {
	case first == "" && hasLast:
		return max(0, size-end), size, true
	case hasFirst && last == "":
		return begin, size, true
	case hasFirst && hasLast && begin <= end:
		return begin, min(end, size-1) + 1, true
	}
	return 0, 0, false
}

// parsePlace parses digits. A number that is too large becomes the largest int64, which
// lies past every end.
func parsePlace(digits string) (int64, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(digits, 10, 64) // out of range, it is the largest int64
	return n, true
}
