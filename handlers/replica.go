package handlers

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"clouddragon/db"
	"clouddragon/internal/replica"
)

// With a standby, a server answers only while it is allowed to; see Options.Admit. This
// package does not read the messages between the two servers: it checks the token and
// passes them on.

// admitted returns an error if this server must not answer a call now. Every server
// answers calls about itself.
func (s *server) admitted(c *call, e *endpoint) error {
	stale := slices.Contains(e.params, "stale") && c.params.flag("stale")
	switch {
	case c.params.bad != nil:
		return c.params.bad
	case s.admit == nil, c.api == Page, c.api == Healthz, c.api == OpenAPI, c.api == Metrics, c.aboutReplica():
		return nil
	}
	if stale && e.watch != nil { // a standby cannot be watched
		stale = c.params.text("not") == "" && c.params.text("wait") == ""
	}
	c.stale = stale
	return s.admit(e.method != http.MethodGet, stale)
}

// tooLate returns an error if a finished call must no longer be answered: since it was
// admitted, the server may have hung and been replaced. Only a write that is done may always
// be answered: either a standby has it, or none can have replaced this server.
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

// saysData reports whether an answer reveals something about what is stored or held.
func (c *call) saysData() bool {
	switch c.api {
	case Page, Healthz, OpenAPI, Metrics, Replica, ReplicaStatus, Promote, Other:
		return false
	}
	switch c.status {
	case http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable,
		http.StatusNotModified, http.StatusUnprocessableEntity, http.StatusLocked:
		return true
	}
	return c.status < http.StatusMultipleChoices
}

// aboutReplica reports whether a request is for one of the routes below /replica/.
func (c *call) aboutReplica() bool {
	return c.api == Replica || c.api == ReplicaStatus || c.api == Promote
}

// POST /replica/promote?force=
func promote(s *server, c *call) error {
	c.r.URL.RawQuery = "" // the parameter may be in the body
	switch force := c.params.text("force"); force {
	case "", "false":
	case "1", "true":
		c.r.URL.RawQuery = "force=1"
	default:
		return badRequest("force must be 1, not %s", quote(force))
	}
	return servePeers(s, c)
}

// GET /replica/status, and POST below /replica/
func servePeers(s *server, c *call) error {
	w := &statusWriter{c.w, http.StatusOK}
	c.sent = true
	c.notStored()
	c.patience()
	s.peers.ServeHTTP(w, c.r)
	c.status = w.status
	return nil
}

// elsewhere returns the address of the server that can answer a call that was refused with err,
// or "" if it is not known.
func elsewhere(err error) string {
	var standby *replica.AwayError
	var account *db.AwayError
	switch {
	case errors.As(err, &standby):
		return standby.Primary
	case errors.As(err, &account) && strings.HasPrefix(account.To, "http"):
		return account.To
	}
	return "" // or the account is behind a socket of that machine
}
