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
	c.stale = stale
	return s.admit(e.method != http.MethodGet, stale)
}

// tooLate returns why what a call says must not be said any more: the server was admitted
// to it, and may have hung since and been replaced. Only a write that is done is sure
// all the same, as a standby has it then or none could have replaced this server.
func (s *server) tooLate(c *call) error {
	if s.admit == nil || !c.saysData() {
		return nil
	}
	write := c.method != http.MethodGet && c.method != http.MethodHead
	inMemory := c.api == MLock || c.api == MUnlock
	if write && c.status < http.StatusMultipleChoices && !inMemory {
		return nil
	}
	return s.admit(write && inMemory, c.stale)
}

// saysData reports whether an answer says something about what is stored or held.
func (c *call) saysData() bool {
	switch c.api {
	case Page, Healthz, OpenAPI, Metrics, Replica, Other:
		return false
	}
	switch c.status {
	case http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable,
		http.StatusNotModified, http.StatusUnprocessableEntity, http.StatusLocked:
		return true
	}
	return c.status < http.StatusMultipleChoices
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
