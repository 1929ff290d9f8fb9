package db

import (
	"fmt"
	"math"

	"clouddragon/db/commit"
)

// CounterAdd is the operation that adds to a counter, which starts from 0.
type CounterAdd struct {
	Key Key
	Add int64
	// Min and Max are the bounds of the result; math.MinInt64 and math.MaxInt64
	// are none.
	Min, Max int64

	// Value is the answer: the new value.
	Value int64

	thing thing
}

// Size returns the most bytes that the operation adds to the log.
func (o *CounterAdd) Size() int { return commit.SlotChange }

// Frees is false.
func (o *CounterAdd) Frees() bool { return false }

func (o *CounterAdd) prepare(*DB) error {
	o.thing.set(kindCounter, o.Key)
	return nil
}

// Decide adds. A *ConflictError says that the result would be out of bounds.
func (o *CounterAdd) Decide(tx *commit.Tx) error {
	e := o.thing.entry(tx)
	next, err := o.next(numberOf(e))
	if err != nil {
		return err
	}
	o.Value = next
	return putNumber(tx, e, next)
}

// next is what adding to a counter at cur gives.
func (o *CounterAdd) next(cur int64) (int64, error) {
	id, add := o.Key.ID, o.Add
	if add > 0 && cur > math.MaxInt64-add || add < 0 && cur < math.MinInt64-add {
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d overflows", id, cur, add)}
	}
	switch next := cur + add; {
	case next < o.Min:
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, under min=%d", id, cur, add, next, o.Min)}
	case next > o.Max:
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, over max=%d", id, cur, add, next, o.Max)}
	default:
		return next, nil
	}
}

// Counter returns the value, or ErrNotFound where there was never one.
func (d *DB) Counter(k Key) (int64, error) { return d.number(kindCounter, k) }
