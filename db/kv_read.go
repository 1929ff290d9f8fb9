package db

import (
	"clouddragon/db/commit"
	"clouddragon/kvlog"
)

// ValueRead is the operation that reads a value between the operations of a Batch.
// Outside of one, Read is faster because it does not need the writer.
type ValueRead struct {
	Key Key
	Conditions
	// Budget is how many bytes all reads of the batch together may still take. nil: no
	// limit.
	Budget *int64

	// Value is the answer.
	Value Value

	lookup lookup
	early  kvlog.Value // the value as it was when the operation was submitted
}

// Size is 0: reading needs no room.
func (o *ValueRead) Size() int { return 0 }

// Frees is true.
func (o *ValueRead) Frees() bool { return true }

func (o *ValueRead) account() string { return o.Key.Acc }

func (o *ValueRead) prepare(d *DB) error {
	if err := o.lookup.prepare(d, o.Key); err != nil {
		return err
	}
	var err error
	o.early, err = o.lookup.readEarly(o.Budget)
	return err
}

// readEarly reads the value on the caller's goroutine and takes its size from the budget.
func (l *lookup) readEarly(budget *int64) (early kvlog.Value, err error) {
	if l.err != nil || !l.found.OK {
		return early, nil
	}
	if budget != nil {
		if *budget -= int64(l.found.Size); *budget < 0 {
			return early, ErrTooLarge
		}
	}
	// Decide meets the error again if the key still has this value.
	early, _, _ = l.d.store.Values.Get(l.key.Acc, l.key.ID, l.hash, maxEarly)
	return early, nil
}

// maxEarly is the most that readEarly reads: no value is larger.
const maxEarly = 1 << 30

// Decide returns the value, or ErrNotFound or ErrDamaged. It returns a *ConflictError or a
// *MatchError if the conditions do not hold. A value that another operation of the batch
// has stored comes from the transaction. The disk is read only if the value has changed
// since the operation was submitted.
func (o *ValueRead) Decide(tx *commit.Tx) error {
	_, val, err := o.lookup.read(tx, &o.Conditions, &o.early)
	if err != nil {
		return err
	}
	o.Value = valueOf(&val, tx.Now())
	o.Value.Data = append([]byte(nil), val.Data...)
	return nil
}

// read returns the entry and the value of a key if the conditions hold.
func (l *lookup) read(tx *commit.Tx, c *Conditions, early *kvlog.Value) (e *commit.ValueEntry, val kvlog.Value, err error) {
	if e, err = l.entry(tx, false); err != nil {
		return nil, val, err
	}
	if err := l.check(tx, e, c); err != nil {
		return nil, val, err
	}
	if !e.Live(tx.Now()) {
		return nil, val, ErrNotFound
	}
	val, err = l.value(tx, e, early)
	return e, val, err
}

// value returns the value of a key: the one that the transaction has stored, or the one
// that readEarly has read. It reads the disk only if the value has changed since then. The
// value's end is that of e.
func (l *lookup) value(tx *commit.Tx, e *commit.ValueEntry, early *kvlog.Value) (val kvlog.Value, err error) {
	val = *early
	if body := tx.Stored(e); body != nil {
		if val, err = l.d.store.Values.Decode(body); err != nil {
			return val, err
		}
	} else if val.Data == nil && val.Length > 0 || val.Version != e.Found().Version {
		var ok bool
		if val, ok, err = l.d.store.Values.Get(l.key.Acc, l.key.ID, l.hash, maxEarly); err != nil || !ok {
			return val, ErrDamaged
		}
	}
	val.Expires = e.Found().Expires
	return val, nil
}
