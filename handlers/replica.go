package handlers

import (
	"net/http"
	"slices"

	"clouddragon/internal/replica"
)

// A server of several that hold the same data answers only while it may; see
// Options.Admit. What these servers tell each other is not the business of this
// package: it checks the token and passes it on.

// admitted returns why a call is not answered by this server now. Every server says how
// it is itself.
func (s *server) admitted(c *call, e *endpoint) error {
	stale := slices.Contains(e.params, "stale") && c.params.flag("stale")
	switch {
	case c.params.bad != nil:
		return c.params.bad
	case s.admit == nil, c.api == Page, c.api == Healthz, c.api == OpenAPI, c.api == Metrics, c.api == Replica:
		return nil
	}
	if stale { // a standby is not watched
		stale = c.params.text("not") == "" && c.params.text("wait") == ""
	}
	return s.admit(e.method != http.MethodGet, stale)
}

// GET and POST /replica/
func servePeers(s *server, c *call) error {
	if s.peers == nil {
		return c.noRoute()
	}
	w := &statusWriter{c.w, http.StatusOK}
	c.sent = true
	c.patience()
	s.peers.ServeHTTP(w, c.r)
	c.status = w.status
	return nil
}

// awayFrom says in a header where the primary is.
func awayFrom(h http.Header, err *replica.AwayError) {
	if err.Primary != "" {
		h["Location"] = []string{err.Primary}
	}
}
