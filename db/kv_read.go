package db

import (
	"clouddragon/db/commit"
	"clouddragon/kvlog"
)

// ValueRead is the operation that reads a value between the operations of a Group.
// Outside of one, Read is faster: it needs no writer.
type ValueRead struct {
	Key Key
	Conditions
	// Budget is how many bytes the reads of a group may still take, all together;
	// nil: there is no bound.
	Budget *int64

	// Value is the answer.
	Value Value

	lookup lookup
	early  kvlog.Value // what was read when the operation was submitted
}

// Size is 0: reading needs no room.
func (o *ValueRead) Size() int { return 0 }

// Frees is true.
func (o *ValueRead) Frees() bool { return true }

func (o *ValueRead) prepare(d *DB) error {
	if err := o.lookup.prepare(d, o.Key); err != nil {
		return err
	}
	if o.lookup.err != nil || !o.lookup.found.OK {
		return nil
	}
	if o.Budget != nil {
		if *o.Budget -= int64(o.lookup.found.Size); *o.Budget < 0 {
			return ErrTooLarge
		}
	}
	// An error is met again by Decide, if the value is still the key's.
	o.early, _, _ = d.store.Values.Get(o.Key.Acc, o.Key.ID, o.lookup.hash, maxEarly)
	return nil
}

// maxEarly bounds what a ValueRead reads before it is decided: no value is larger.
const maxEarly = 1 << 30

// Decide reads the value, or returns ErrNotFound, or ErrDamaged. A *ConflictError or
// a *MatchError says that the conditions do not hold. What another operation of the
// group has stored is read from the batch; only a value that has changed since the
// operation was submitted is read from the disk here.
func (o *ValueRead) Decide(tx *commit.Tx) error {
	e, err := o.lookup.entry(tx, false)
	if err != nil {
		return err
	}
	if err := o.lookup.check(tx, e, &o.Conditions); err != nil {
		return err
	}
	if !e.Live(tx.Now()) {
		return ErrNotFound
	}
	val := o.early
	if body := tx.Stored(e); body != nil {
		if val, err = o.lookup.d.store.Values.Decode(body); err != nil {
			return err
		}
	} else if val.Data == nil && val.Length > 0 || val.Version != e.Found().Version {
		var ok bool
		val, ok, err = o.lookup.d.store.Values.Get(o.Key.Acc, o.Key.ID, o.lookup.hash, maxEarly)
		if err != nil || !ok {
			return ErrDamaged
		}
	}
	o.Value = Value{Data: append([]byte(nil), val.Data...), Size: val.Length, Type: string(val.Type), Version: int64(val.Version)}
	return nil
}
