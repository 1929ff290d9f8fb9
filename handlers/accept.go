package handlers

import (
	"strings"

	"clouddragon/internal/units"
)

// wantsJSON reports whether the client prefers application/json to text/plain. The
// one with the higher q in Accept wins; if both have the same q, the first wins. Only
// these two names count, so browsers and curl's */* get text. If Accept has neither, a
// batch is answered in the form of its request.
func (c *call) wantsJSON() bool {
	json, best := c.cameAsJSON, 0
	for _, list := range c.r.Header["Accept"] {
		for list != "" {
			var media string
			media, list, _ = strings.Cut(list, ",")
			media, attributes, _ := strings.Cut(media, ";")
			media = strings.TrimSpace(media)
			isJSON := strings.EqualFold(media, "application/json")
			if !isJSON && !strings.EqualFold(media, "text/plain") {
				continue
			}
			if q := quality(attributes); q > best {
				json, best = isJSON, q
			}
		}
	}
	return json
}

// quality returns the q of a media range in thousandths. If q is missing or malformed,
// it returns 1000.
//
//	q = "0" [ "." 0*3 digit ] | "1" [ "." 0*3 "0" ]
func quality(attributes string) int {
	for attributes != "" {
		var a string
		a, attributes, _ = strings.Cut(attributes, ";")
		name, value, _ := strings.Cut(a, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		whole, fraction, _ := strings.Cut(strings.TrimSpace(value), ".")
		if whole != "0" || len(fraction) > 3 || fraction != "" && !units.Digits(fraction) {
			return 1000
		}
		q := 0
		for i := range 3 {
			q *= 10
			if i < len(fraction) {
				q += int(fraction[i] - '0')
			}
		}
		return q
	}
	return 1000
}
