package handlers

import (
	"sync/atomic"
	"time"
)

// handClock is a clock of a database that stands still until a test moves it.
type handClock struct{ passed atomic.Int64 }

func newHandClock() *handClock { return new(handClock) }

func (c *handClock) read() (mono, wall int64) {
	return c.passed.Load(), 1_800_000_000e9 + c.passed.Load()
}

func (c *handClock) pass(d time.Duration) { c.passed.Add(int64(d)) }
