package handlers

import (
	"math"

	"clouddragon/db"
)

// POST /db/:acc/sequence/:id?n=&above=&lock=&token=
var addSequence = durable(
	func(_ *server, a *ask) (*db.SequenceAdd, error) {
		op := &db.SequenceAdd{
			Key:   a.key,
			N:     a.params.number("n", 1, 1, db.MaxBlock),
			Above: a.params.number("above", 0, math.MinInt64, math.MaxInt64),
			Fence: a.params.fence(),
		}
		return op, a.params.bad
	},
	func(op *db.SequenceAdd) result { return numbered(op.Value) },
)

// GET /db/:acc/sequence/:id
func getSequence(s *server, c *call) error {
	n, err := s.db.Sequence(c.key)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

// GET and DELETE /db/:acc/sequence/:id; the GET in a batch
var readSequence, resetSequence = readNumber(false), resetNumber(false)

// readNumber reads a sequence or a counter between other operations.
func readNumber(counter bool) *steps {
	return durable(
		func(_ *server, a *ask) (*db.NumberRead, error) {
			return &db.NumberRead{Key: a.key, Counter: counter}, a.params.bad
		},
		func(op *db.NumberRead) result { return numbered(op.Value) },
	)
}

// resetNumber deletes a sequence or a counter.
func resetNumber(counter bool) *steps {
	return durable(
		func(_ *server, a *ask) (*db.NumberReset, error) {
			return &db.NumberReset{Key: a.key, Counter: counter, Fence: a.params.fence()}, a.params.bad
		},
		func(*db.NumberReset) result { return done() },
	)
}
