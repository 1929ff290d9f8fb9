package db

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// The generic cell rate algorithm (GCRA). A rate is stored as one instant, the theoretical
// arrival time: then everything that was counted so far is paid off. The time from now to
// it is the backlog. A call that counts as cost is allowed if the burst leaves room for it
// beside the backlog. It adds cost·per/limit to the backlog. A rate whose instant has
// passed is like one that was never used.
//
// All times are whole nanoseconds, and products have 128 bits. What a call adds is rounded
// down. So the rate is exact to one nanosecond a call, and a burst is exact: a full rate
// never allows one call more or less at once.

// Rate says how often something may happen.
type Rate struct {
	Limit int64         // how many are allowed in Per on average, 1 to MaxRate
	Per   time.Duration // at most MaxPer
	Burst int64         // how many are allowed at once, 1 to MaxRate
}

// MaxRate is the largest Limit and Burst of a Rate.
const MaxRate = 1_000_000_000

// MaxPer is the longest Per of a Rate, and the largest backlog. A burst that would take
// longer to pay off is not allowed at once.
const MaxPer = 100 * 365 * 24 * time.Hour

// mulDiv returns a·b/c rounded down, and whether rounding changed it. It returns
// math.MaxInt64 for larger results. a, b and c must not be negative, and c must not be 0.
func mulDiv(a, b, c int64) (n int64, inexact bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64, false
	}
	q, rest := bits.Div64(hi, lo, uint64(c))
	if q >= math.MaxInt64 {
		return math.MaxInt64, false
	}
	return int64(q), rest > 0
}

// adds returns how much a call that counts as n adds to the backlog.
func (r *Rate) adds(n int64) int64 {
	t, _ := mulDiv(n, int64(r.Per), r.Limit)
	return t
}

// most returns the largest backlog at which a call that counts as cost is allowed. It is
// negative if the call is never allowed.
func (r *Rate) most(cost int64) int64 {
	t, inexact := mulDiv(cost, int64(r.Per), r.Limit)
	if inexact {
		t++
	}
	return min(r.adds(r.Burst-cost), int64(MaxPer)-t)
}

// left returns how many more are allowed at a backlog.
func (r *Rate) left(backlog int64) int64 {
	used, inexact := mulDiv(backlog, r.Limit, int64(r.Per))
	if used >= r.Burst {
		return 0
	}
	if inexact {
		used++
	}
	room, _ := mulDiv(max(0, int64(MaxPer)-backlog), r.Limit, int64(r.Per))
	return min(r.Burst-used, room)
}

// until returns the time until a call that counts as cost is allowed.
func (r *Rate) until(backlog, cost int64) time.Duration {
	most := r.most(cost)
	if most < 0 {
		return MaxPer
	}
	return time.Duration(max(0, backlog-most))
}

// RateState is the state of a rate as callers see it.
type RateState struct {
	Left int64         // how many more are allowed right now
	Full time.Duration // until everything is allowed again
}

// RateError is returned when a rate does not allow the call before its wait is over.
// Nothing was counted.
type RateError struct {
	Reason string // one line
	Rate   Rate
	State  RateState
	Retry  time.Duration // until the call would be allowed
}

func (e *RateError) Error() string { return e.Reason }

func rateError(r *RateRequest, s RateState, retry time.Duration) error {
	reason := fmt.Sprintf("rate %q allows %d more now, and %d in %v", r.Key.ID, s.Left, r.Cost, roundUp(retry, time.Millisecond))
	return &RateError{reason, r.Rate, s, retry}
}

// roundUp rounds a duration up to a multiple of unit.
func roundUp(d, unit time.Duration) time.Duration {
	if rest := d % unit; rest > 0 {
		d += unit - rest
	}
	return d
}
