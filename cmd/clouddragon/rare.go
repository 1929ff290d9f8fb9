package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// How many lines a rare handler passes on, and how often.
const (
	rareLines  = 10
	rarePeriod = time.Minute
)

// rare passes on a few records a minute. It is for what strangers cause, such as
// a plain request to a port that speaks TLS.
type rare struct {
	slog.Handler

	mu      sync.Mutex // guards the fields below
	began   time.Time  // of the period
	passed  int        // in the period
	leftOut int        // since the last record that was passed on
}

func newRare(h slog.Handler) *rare { return &rare{Handler: h} }

// Handle passes r on, with how many were left out before it, or leaves it out.
func (h *rare) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	if r.Time.Sub(h.began) >= rarePeriod {
		h.began, h.passed = r.Time, 0
	}
	if h.passed == rareLines {
		h.leftOut++
		h.mu.Unlock()
		return nil
	}
	h.passed++
	n := h.leftOut
	h.leftOut = 0
	h.mu.Unlock()
	if n > 0 {
		r.AddAttrs(slog.Int("left_out", n))
	}
	return h.Handler.Handle(ctx, r)
}
