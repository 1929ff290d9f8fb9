package db

import (
	"fmt"
	"math"
)

// AddCounter adds to a counter, which starts from 0, and returns the new value.
// A *ConflictError says that it would be under min, over max or out of int64;
// math.MinInt64 and math.MaxInt64 are no bounds.
func (d *DB) AddCounter(k Key, add, min, max int64) (int64, error) {
	o := newOp(verbAdd, kindCounter, k)
	defer o.free()
	o.n, o.min, o.max = add, min, max
	err := d.do(o)
	return o.value, err
}

// Counter returns the value, or ErrNotFound where there was never one.
func (d *DB) Counter(k Key) (int64, error) { return d.number(kindCounter, k) }

// ResetCounter forgets the value: the counter starts from 0.
func (d *DB) ResetCounter(k Key) error { return d.reset(kindCounter, k) }

// nextCount is what adding to a counter at cur gives.
func nextCount(id string, cur, add, min, max int64) (int64, error) {
	if add > 0 && cur > math.MaxInt64-add || add < 0 && cur < math.MinInt64-add {
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d overflows", id, cur, add)}
	}
	switch next := cur + add; {
	case next < min:
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, under min=%d", id, cur, add, next, min)}
	case next > max:
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, over max=%d", id, cur, add, next, max)}
	default:
		return next, nil
	}
}
