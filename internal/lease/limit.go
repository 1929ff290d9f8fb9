package lease

import "sync/atomic"

// Limit limits the claims that wait in all tables that share it. It is safe for concurrent use.
type Limit struct {
	max     int64
	waiting atomic.Int64
}

// NewLimit returns a limit of max claims.
func NewLimit(max int) *Limit { return &Limit{max: int64(max)} }

// Waiting returns how many claims wait now.
func (l *Limit) Waiting() int { return int(l.waiting.Load()) }

// Take reserves a place for one more claim, to be returned with Give. It returns false if there is none.
func (l *Limit) Take() bool {
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

// Retake undoes a Give. Another table may have taken the place since, so the limit may be exceeded for as long as the
// claim waits.
func (l *Limit) Retake() { l.waiting.Add(1) }

// Give returns a place.
func (l *Limit) Give() { l.waiting.Add(-1) }
