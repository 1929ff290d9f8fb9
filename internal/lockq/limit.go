package lockq

import "sync/atomic"

// Limit bounds how many wait in all tables that share it. It is safe for concurrent use.
type Limit struct {
	max     int64
	waiting atomic.Int64
}

// NewLimit returns a limit of max waiters.
func NewLimit(max int) *Limit { return &Limit{max: int64(max)} }

// Waiting returns how many wait now.
func (l *Limit) Waiting() int { return int(l.waiting.Load()) }

func (l *Limit) take() bool {
	for {
		n := l.waiting.Load()
		if n >= l.max {
			return false
		}
		if l.waiting.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *Limit) give() { l.waiting.Add(-1) }
