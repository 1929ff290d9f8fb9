package handlers

import (
	"math"

	"clouddragon/db"
)

// POST /db/:acc/counter/:id?add=&min=&max=
var addCounter = durable(
	func(_ *server, a *ask) (*db.CounterAdd, error) {
		op := &db.CounterAdd{
			Key: a.key,
			Add: a.params.number("add", 1, math.MinInt64, math.MaxInt64),
			Min: a.params.number("min", math.MinInt64, math.MinInt64, math.MaxInt64),
			Max: a.params.number("max", math.MaxInt64, math.MinInt64, math.MaxInt64),
		}
		if a.params.bad == nil && op.Min > op.Max {
			return nil, badRequest("min=%d is over max=%d", op.Min, op.Max)
		}
		return op, a.params.bad
	},
	func(op *db.CounterAdd) result { return numbered(op.Value) },
)

// GET /db/:acc/counter/:id
func getCounter(s *server, c *call) error {
	n, err := s.db.Counter(c.key)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

// GET and DELETE /db/:acc/counter/:id; the GET in a batch
var readCounter, resetCounter = readNumber(true), resetNumber(true)
