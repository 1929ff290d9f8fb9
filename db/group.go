package db

import (
	"errors"
	"slices"

	"clouddragon/db/commit"
)

// Batch is an operation made of many, with one transaction, one commit and one sync. With
// Atomic all of them are done or none. Without it each is done on its own, in order.
type Batch struct {
	Ops    []Operation
	Atomic bool
	// Answers reports whether the error of an operation is an answer and not a refusal,
	// such as a read that finds nothing. nil: every error is a refusal.
	Answers func(i int, err error) bool
	// Check, if not nil, is called after an operation is decided. Its error refuses the
	// whole batch, even if the batch is not Atomic.
	Check func(i int) error

	// Errs are the answers, one for each operation.
	Errs []error

	freeing bool // the disk is full: only operations that free are decided
}

// FreeOnly makes a batch that was refused with ErrFull refuse only the operations that need
// room, and do the others. It returns false if there are none, or if the batch is Atomic.
func (b *Batch) FreeOnly() bool {
	b.freeing = !b.Atomic && slices.ContainsFunc(b.Ops, Operation.Frees)
	return b.freeing
}

// Size returns the least that a batch adds to the log: many calls on one thing take no
// more than one. If the batch turns out to add more, the writer asks for room again.
func (b *Batch) Size() int {
	if b.writes() {
		return commit.SlotChange
	}
	return 0
}

func (b *Batch) writes() bool {
	for _, op := range b.Ops {
		if op.Size() > 0 && !b.refuses(op) {
			return true
		}
	}
	return false
}

// Frees reports whether every operation that is decided frees.
func (b *Batch) Frees() bool {
	for _, op := range b.Ops {
		if !op.Frees() && !b.freeing {
			return false
		}
	}
	return true
}

// refuses reports whether an operation is refused because the disk is full.
func (b *Batch) refuses(op Operation) bool { return b.freeing && !op.Frees() }

// account is that of the operations, which all have the same.
func (b *Batch) account() string {
	for _, op := range b.Ops {
		if acc := op.account(); acc != "" {
			return acc
		}
	}
	return ""
}

func (b *Batch) prepare(d *DB) error {
	b.Errs = make([]error, len(b.Ops))
	for i, op := range b.Ops {
		if err := op.prepare(d); err != nil {
			return &commit.GroupError{Index: i, Err: err}
		}
	}
	return nil
}

// Decide decides the operations in order. Each sees the changes of those before it. If one
// is refused, it returns a *commit.GroupError and nothing changed.
func (b *Batch) Decide(tx *commit.Tx) error {
	for i, op := range b.Ops {
		if b.refuses(op) {
			b.Errs[i] = ErrFull
			continue
		}
		err := tx.Try(op)
		if err == commit.ErrWaiting {
			panic("db: an operation of a batch waits")
		}
		if lacks := (*commit.NoRoom)(nil); errors.As(err, &lacks) {
			return err
		}
		b.Errs[i] = err
		if err == nil && b.Check != nil {
			err = b.Check(i)
			if err != nil {
				return &commit.GroupError{Index: i, Err: err}
			}
		}
		if err != nil && b.Atomic && (b.Answers == nil || !b.Answers(i, err)) {
			return &commit.GroupError{Index: i, Err: err}
		}
	}
	return nil
}
