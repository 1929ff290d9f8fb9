package handlers

import (
	"net/http"
	"net/url"
	"strings"

	"clouddragon/db"
)

// Role is the role of a server in replication.
type Role uint8

// The roles. Neither means that the server must not answer, such as a primary whose lease
// has expired.
const (
	Primary Role = iota // it may answer
	Standby             // it follows a primary
	Neither
)

// role returns the server's current role; see Options.Role.
func (s *server) role() Role {
	if s.askRole == nil {
		return Primary
	}
	return s.askRole()
}

// GET and OPTIONS /healthz?role=: some balancers ask with OPTIONS.
func getHealth(s *server, c *call) error {
	if c.r.Method == http.MethodOptions {
		c.w.Header()["Allow"] = []string{"GET, HEAD, OPTIONS"}
	}
	want := c.params.text("role")
	if want != "" && want != "primary" && want != "standby" {
		return badRequest("role must be primary or standby, not %s", quote(want))
	}
	if s.db == nil {
		return &refusal{http.StatusServiceUnavailable, "the standby does not follow its primary yet"}
	}
	if err := s.db.Err(); err != nil {
		return err
	}
	select {
	case <-s.draining:
		return db.ErrStopping
	default:
	}
	switch {
	case want == "primary" && s.role() != Primary:
		return &refusal{http.StatusServiceUnavailable, "this server is not the primary"}
	case want == "standby" && s.role() != Standby:
		return &refusal{http.StatusServiceUnavailable, "this server is not a standby"}
	}
	return c.sayText("ok")
}

// readRole reads role= from the query of /healthz. Other parameters are ignored, because
// balancers add their own.
func (p *params) readRole(query string) error {
	for pair := range strings.SplitSeq(query, "&") {
		raw, ok := strings.CutPrefix(pair, "role=")
		if !ok {
			continue
		}
		value, err := url.QueryUnescape(raw)
		if err != nil {
			return badRequest("role has a bad percent escape: %s", quote(raw))
		}
		if err := p.take("role", value); err != nil {
			return err
		}
	}
	return nil
}

// GET /metrics
func getMetrics(s *server, c *call) error {
	w := &statusWriter{c.w, http.StatusOK}
	c.sent = true
	c.notStored()
	s.sayStopping(c)
	s.metrics.ServeHTTP(w, c.r)
	c.status = w.status
	return nil
}

// methodLabel keeps methods that clients make up out of the metrics.
func methodLabel(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
		return m
	}
	return "other"
}

// statusWriter remembers the status of an answer that another handler writes.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
