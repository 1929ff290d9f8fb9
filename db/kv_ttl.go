package db

import (
	"time"

	"clouddragon/db/commit"
	"clouddragon/kvlog"
)

// ValueTTL is the operation that gives a value another end. Its version and its bytes
// stay. The end is part of the value's record, so the value is read when the operation is
// submitted, and the record is written again.
type ValueTTL struct {
	Key Key
	TTL time.Duration // from now on; 0: remove the end
	Conditions
	Fence Fence
	// Budget is how many bytes of values the operation, or all operations of a batch
	// together, may read. nil: no limit. If it is too small, the operation fails with
	// ErrTooLarge when it is submitted, and Needs returns what it needs.
	Budget *int64

	// Version is the answer.
	Version int64

	lookup lookup
	early  kvlog.Value
}

// Needs returns the size of the value that the operation reads. It is known after the
// operation is submitted.
func (o *ValueTTL) Needs() int64 { return int64(o.lookup.found.Size) }

// Size returns the most bytes that the operation adds to the log, unless the value
// has changed since it was submitted.
func (o *ValueTTL) Size() int { return o.lookup.found.Size }

// Frees is false.
func (o *ValueTTL) Frees() bool { return false }

func (o *ValueTTL) account() string { return o.Key.Acc }

func (o *ValueTTL) prepare(d *DB) (err error) {
	o.Fence.prepare(d)
	if err := o.lookup.prepare(d, o.Key); err != nil {
		return err
	}
	o.early, err = o.lookup.readEarly(o.Budget)
	return err
}

// Decide gives the value its end. It returns ErrNotFound if there is no value, and a
// *ConflictError or a *MatchError if the fence or the conditions do not hold.
func (o *ValueTTL) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	e, val, err := o.lookup.read(tx, &o.Conditions, &o.early)
	if err != nil {
		return err
	}
	v := commit.NewValue{Type: string(val.Type), Encoding: string(val.Encoding), Data: val.Data, Sum: val.Sum}
	if o.TTL != 0 {
		v.Expires = tx.Now() + int64(o.TTL)
	}
	o.Version = int64(val.Version)
	tx.RetimeValue(e, &v)
	return nil
}
