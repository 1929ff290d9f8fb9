package db

import (
	"errors"

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
		if op.Size() > 0 {
			return true
		}
	}
	return false
}

// Frees reports whether every operation frees.
func (b *Batch) Frees() bool {
	for _, op := range b.Ops {
		if !op.Frees() {
			return false
		}
	}
	return true
}

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
