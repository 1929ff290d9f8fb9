package db

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// The generic cell rate algorithm (GCRA). A rate is one instant: the theoretical
// arrival time, at which everything that was counted so far has been paid off. Its
// distance from now is the backlog. Something that counts as cost is allowed if the
// backlog leaves room for it in the burst, and then adds cost·per/limit to the
// backlog. A rate whose instant has passed is as one that was never used.
//
// All of it is computed in whole nanoseconds, with products of 128 bits. What a call
// adds is rounded down, so the rate is exact to one nanosecond a call, and a burst is
// exact: what a full rate allows at once is never one more or one less.

// Rate is what may happen how often.
type Rate struct {
	Limit int64         // so many, 1 to MaxRate,
	Per   time.Duration // in this time, on average
	Burst int64         // and so many at once, 1 to MaxRate
}

// MaxRate is the largest Limit and Burst of a Rate.
const MaxRate = 1_000_000_000

// MaxPer is the longest Per of a Rate, and the largest backlog. A burst that would
// take longer than that to pay off is not allowed at once.
const MaxPer = 100 * 365 * 24 * time.Hour

// mulDiv returns a·b/c rounded down and whether that is less than a·b/c. It returns
// math.MaxInt64 for what is larger. None of them may be negative, and c not 0.
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

// adds is how much the backlog grows for something that counts as n.
func (r *Rate) adds(n int64) int64 {
	t, _ := mulDiv(n, int64(r.Per), r.Limit)
	return t
}

// most is the largest backlog with which something that counts as cost is allowed. It
// is negative if that is never allowed.
func (r *Rate) most(cost int64) int64 {
	t, inexact := mulDiv(cost, int64(r.Per), r.Limit)
	if inexact {
		t++
	}
	return min(r.adds(r.Burst-cost), int64(MaxPer)-t)
}

// left is how many more are allowed with a backlog.
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

// until is how long it takes until something that counts as cost is allowed.
func (r *Rate) until(backlog, cost int64) time.Duration {
	most := r.most(cost)
	if most < 0 {
		return MaxPer
	}
	return time.Duration(max(0, backlog-most))
}

// RateState is what a caller is told of a rate.
type RateState struct {
	Left int64         // how many more are allowed right now
	Full time.Duration // until it is as if it was never used
}

// RateError is returned when a rate does not allow the call now, or not before its
// wait would be over. Nothing was counted.
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
