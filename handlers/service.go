package handlers

import (
	"net/http"

	"clouddragon/db"
)

// GET and OPTIONS /healthz: some balancers ask with OPTIONS.
func getHealth(s *server, c *call) error {
	if c.r.Method == http.MethodOptions {
		c.w.Header()["Allow"] = []string{"GET, HEAD, OPTIONS"}
	}
	if err := s.db.Err(); err != nil {
		return err
	}
	select {
	case <-s.draining:
		return db.ErrStopping
	default:
		return c.sayText("ok")
	}
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

// statusWriter remembers the status of an answer that another handler writes.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
