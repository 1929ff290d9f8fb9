package handlers

import (
	"math"
	"strconv"
	"strings"
	"time"

	"clouddragon/db"
)

// fence reads the parameters lock and token. Both have to be given, or neither.
func (p *params) fence() db.Fence {
	f := db.Fence{Lock: p.text("lock"), Token: p.number("token", 0, 1, math.MaxInt64)}
	if (f.Lock == "") != (p.text("token") == "") {
		p.fail(badRequest("lock and token go together: lock=NAME&token=42 writes only while token 42 holds lock NAME"))
	}
	if len(f.Lock) > db.MaxID || strings.IndexByte(f.Lock, 0) >= 0 {
		p.fail(badRequest("lock must be the id of a lock, of 1 to %d bytes without NUL, not %s", db.MaxID, quote(f.Lock)))
	}
	return f
}

// maxTTL is the longest ttl.
const maxTTL = 100 * 365 * 24 * time.Hour

// ttl reads the parameter ttl. 0 means no end.
func (p *params) ttl() time.Duration {
	if p.text("ttl") == "none" {
		return 0
	}
	return p.duration("ttl", 0, maxTTL, false)
}

// sayTTL sets the header Ttl to the time that is left, in seconds to the millisecond. For
// 0, which means no end, it sets nothing.
func (c *call) sayTTL(left time.Duration) {
	if left > 0 {
		left += time.Millisecond - 1 // round up, so it is not 0 while the thing exists
		c.w.Header()["Ttl"] = []string{strconv.FormatFloat(seconds(left), 'f', 3, 64)}
	}
}
