package db

import (
	"encoding/binary"
	"time"

	"clouddragon/db/commit"
)

// numberSize is the size of a sequence's payload: an int64, little endian. A counter's
// payload begins with the same. Part of the file format, never changed.
const numberSize = 8

var le = binary.LittleEndian

// numberOf returns the number of an entry, or 0 if the entry does not exist.
func numberOf(e *commit.Entry) int64 {
	if !e.Live() {
		return 0
	}
	return int64(le.Uint64(e.Payload()))
}

func putNumber(tx *commit.Tx, e *commit.Entry, n int64) error {
	b := tx.Bytes(numberSize)
	le.PutUint64(b, uint64(n))
	return tx.Put(e, b)
}

// NumberReset is the operation that removes a sequence or a counter.
type NumberReset struct {
	Key     Key
	Counter bool // it is a counter, else a sequence
	Fence   Fence

	thing thing
}

// Size returns the most bytes that the operation adds to the log.
func (o *NumberReset) Size() int { return commit.SlotChange }

// Frees is true: the slot is free again.
func (o *NumberReset) Frees() bool { return true }

func (o *NumberReset) account() string { return o.Key.Acc }

func (o *NumberReset) prepare(d *DB) error {
	o.Fence.prepare(d)
	kind := kindSequence
	if o.Counter {
		kind = kindCounter
	}
	o.thing.set(kind, o.Key)
	return nil
}

// Decide removes the number. A missing number is not an error. It returns a *ConflictError
// if the Fence does not hold.
func (o *NumberReset) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	if e := o.thing.entry(tx); e.Live() {
		tx.Remove(e)
	}
	return nil
}

// NumberRead is the operation that reads a sequence or a counter between the operations of
// a Batch.
type NumberRead struct {
	Key     Key
	Counter bool // it is a counter, else a sequence

	// Value and Left are the answer. Left is the time until a counter ends; 0: it has no
	// end.
	Value int64
	Left  time.Duration

	thing thing
}

// Size is 0: reading needs no room.
func (o *NumberRead) Size() int { return 0 }

// Frees is true.
func (o *NumberRead) Frees() bool { return true }

func (o *NumberRead) account() string { return o.Key.Acc }

func (o *NumberRead) prepare(*DB) error {
	kind := kindSequence
	if o.Counter {
		kind = kindCounter
	}
	o.thing.set(kind, o.Key)
	return nil
}

// Decide reads the number, or returns ErrNotFound.
func (o *NumberRead) Decide(tx *commit.Tx) error {
	e := o.thing.entry(tx)
	if !e.Live() {
		return ErrNotFound
	}
	if !o.Counter {
		o.Value = numberOf(e)
		return nil
	}
	value, ends := readCounter(e.Payload())
	if ends != 0 && ends <= tx.Now() {
		return ErrNotFound
	}
	o.Value, o.Left = value, 0
	if ends != 0 {
		o.Left = time.Duration(ends - tx.Now())
	}
	return nil
}
