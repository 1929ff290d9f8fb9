package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A rare handler passes on rareLines records in each rarePeriod.
const (
	rareLines  = 10
	rarePeriod = time.Minute
)

// rare passes on a few records a minute. It is for records that any client can cause, for
// example with a plain request to a TLS port.
type rare struct {
	slog.Handler

	mu      sync.Mutex // guards the fields below
	began   time.Time  // when the current period began
	passed  int        // records passed on in it
	leftOut int        // records dropped since the last one that was passed on
}

func newRare(h slog.Handler) *rare { return &rare{Handler: h} }

// Handle passes r on, with the number of records that were dropped before it, or drops it.
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
