package db

import (
	"encoding/binary"
	"time"

	"clouddragon/db/commit"
)

// numberSize is the size of the payload of a sequence, and the least of a
// counter: an int64, little endian. Part of the file format, never changed.
const numberSize = 8

var le = binary.LittleEndian

// numberOf returns the number that an entry holds, 0 if it does not exist.
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

// NumberReset is the operation that forgets a sequence or a counter.
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

// Decide forgets the number. That there is none is no error; a *ConflictError says
// that the Fence does not hold.
func (o *NumberReset) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	if e := o.thing.entry(tx); e.Live() {
		tx.Remove(e)
	}
	return nil
}

// NumberRead is the operation that reads a sequence or a counter between the
// operations of a Group.
type NumberRead struct {
	Key     Key
	Counter bool // it is a counter, else a sequence

	// Value is the answer, and Left how long a counter still exists; 0: it has no end.
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
