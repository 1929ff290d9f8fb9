package handlers

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/db"
)

// A list waits for the index of names, but not for long.
func TestListWaitsWhileNamesAreRebuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		draining := make(chan struct{})
		s := &server{draining: draining}
		rebuiltAt := func(d time.Duration) func() error {
			began := time.Now()
			return func() error {
				if time.Since(began) < d {
					return &db.ListingError{Told: 7}
				}
				return db.ErrNotFound
			}
		}
		if err := s.onceNamed(rebuiltAt(time.Second)); err != db.ErrNotFound {
			t.Errorf("rebuilt after a second: %v", err)
		}
		var r *refusal
		if err := s.onceNamed(rebuiltAt(time.Hour)); !errors.As(err, &r) || r.status != http.StatusServiceUnavailable {
			t.Errorf("rebuilt after an hour: %v", err)
		}
		close(draining)
		if err := s.onceNamed(rebuiltAt(time.Hour)); err != db.ErrStopping {
			t.Errorf("while the server shuts down: %v", err)
		}
	})
}
