package db

import (
	"fmt"
	"math"

	"clouddragon/db/commit"
	"clouddragon/slots"
)

// MaxBlock is the largest block of sequence numbers that one call reserves.
const MaxBlock = 1_000_000

// SequenceAdd is the operation that reserves a block of a sequence's numbers.
type SequenceAdd struct {
	Key Key
	N   int64 // how many numbers, 1 to MaxBlock
	// Above is a number that all of them are larger than. With 0 they are larger than the
	// current one, as always.
	Above int64
	Fence Fence

	// Value is the answer: the last number of the block.
	Value int64

	thing thing
}

// Size returns the most bytes that the operation adds to the log.
func (o *SequenceAdd) Size() int { return commit.SlotChange }

// Frees is false.
func (o *SequenceAdd) Frees() bool { return false }

func (o *SequenceAdd) account() string { return o.Key.Acc }

func (o *SequenceAdd) prepare(d *DB) error {
	o.Fence.prepare(d)
	o.thing.set(kindSequence, o.Key)
	return nil
}

// Decide reserves the block. It returns a *ConflictError if the numbers would pass the
// largest int64.
func (o *SequenceAdd) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	e := o.thing.entry(tx)
	cur := numberOf(e)
	if o.Above > cur && o.Above > math.MaxInt64-o.N {
		return &ConflictError{fmt.Sprintf("sequence %q: %d above %d would pass %d", o.Key.ID, o.N, o.Above, int64(math.MaxInt64))}
	}
	if cur > math.MaxInt64-o.N {
		return &ConflictError{fmt.Sprintf("sequence %q is at %d: %d more would pass %d", o.Key.ID, cur, o.N, int64(math.MaxInt64))}
	}
	cur = max(cur, o.Above)
	o.Value = cur + o.N
	return putNumber(tx, e, o.Value)
}

// Sequence returns the last number that was handed out, or ErrNotFound.
func (d *DB) Sequence(k Key) (int64, error) {
	key := slots.Key{Kind: kindSequence, Acc: k.Acc, ID: k.ID}
	var buf [numberSize]byte
	b, ok := d.store.Tables.Get(key, key.Hash(), buf[:0])
	if err := d.Readable(k.Acc); err != nil {
		return 0, err
	}
	if !ok {
		return 0, ErrNotFound
	}
	return int64(le.Uint64(b)), nil
}
