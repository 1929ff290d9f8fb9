package db

import (
	"fmt"
	"math"
)

// number is the payload of a sequence or a counter: an int64, little endian.
const numberSize = 8

// AddSequence adds n, 1 to MaxBlock, and returns the new value: the caller owns
// the n numbers that end with it. A *ConflictError says that the sequence is at its end.
func (d *DB) AddSequence(k Key, n int64) (int64, error) {
	o := newOp(verbAdd, kindSequence, k)
	defer o.free()
	o.n = n
	err := d.do(o)
	return o.value, err
}

// Sequence returns the last number handed out, or ErrNotFound.
func (d *DB) Sequence(k Key) (int64, error) { return d.number(kindSequence, k) }

// ResetSequence makes the sequence start anew at 1.
func (d *DB) ResetSequence(k Key) error { return d.reset(kindSequence, k) }

// nextBlock is what adding n to a sequence at cur gives.
func nextBlock(id string, cur, n int64) (int64, error) {
	if cur > math.MaxInt64-n {
		return 0, &ConflictError{fmt.Sprintf("sequence %q is at %d: %d more would pass %d", id, cur, n, int64(math.MaxInt64))}
	}
	return cur + n, nil
}

// decideAdd adds to a sequence or a counter.
func (d *DB) decideAdd(o *op) {
	c := d.batch.find(o.key, o.hash)
	var cur int64
	if c.live {
		cur = int64(le.Uint64(c.value()))
	}
	if o.key.Kind == kindSequence {
		o.value, o.err = nextBlock(o.key.ID, cur, o.n)
	} else {
		o.value, o.err = nextCount(o.key.ID, cur, o.n, o.min, o.max)
	}
	if o.err == nil {
		var b [numberSize]byte
		le.PutUint64(b[:], uint64(o.value))
		o.capacity, o.err = d.batch.set(c, b[:])
	}
}

// decideReset forgets a sequence or a counter.
func (d *DB) decideReset(o *op) {
	if c := d.batch.find(o.key, o.hash); c.live {
		d.batch.remove(c)
	}
}

func (d *DB) number(kind uint8, k Key) (int64, error) {
	key := slotKey(kind, k)
	var buf [numberSize]byte
	b, ok := d.tables.Get(key, key.Hash(), buf[:0])
	if !ok {
		return 0, ErrNotFound
	}
	return int64(le.Uint64(b)), nil
}

func (d *DB) reset(kind uint8, k Key) error {
	o := newOp(verbReset, kind, k)
	defer o.free()
	return d.do(o)
}
