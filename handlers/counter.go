package handlers

import (
	"math"

	"clouddragon/db"
)

// POST /db/:acc/counter/:id?add=&set=&min=&max=&if=&ttl=&touch=&lock=&token=
var addCounter = durable(
	func(_ *server, a *ask) (*db.CounterAdd, error) {
		op := &db.CounterAdd{
			Key: a.key,
			Add: a.params.number("add", 1, math.MinInt64, math.MaxInt64),
			Min: a.params.number("min", math.MinInt64, math.MinInt64, math.MaxInt64),
			Max: a.params.number("max", math.MaxInt64, math.MinInt64, math.MaxInt64),

			If:    a.params.counterIf(),
			TTL:   a.params.duration("ttl", 0, maxTTL, false),
			Touch: a.params.flag("touch"),
			Fence: a.params.fence(),
		}
		if a.params.text("set") != "" {
			if a.params.text("add") != "" {
				a.params.fail(badRequest("add and set exclude each other: give one of them"))
			}
			op.Set, op.Add = true, a.params.number("set", 0, math.MinInt64, math.MaxInt64)
		}
		if op.Touch && op.TTL == 0 {
			a.params.fail(badRequest("touch=true needs a ttl"))
		}
		if op.Min > op.Max {
			a.params.fail(badRequest("min=%d is over max=%d", op.Min, op.Max))
		}
		return op, a.params.bad
	},
	func(op *db.CounterAdd) result { return numbered(op.Value) },
)

// counterIf reads the parameter if.
func (p *params) counterIf() db.CounterIf {
	switch p.text("if") {
	case "":
		return db.CounterIf{}
	case "none":
		return db.CounterIf{Asked: true, None: true}
	}
	n, ok := parseNumber(p.text("if"))
	if !ok {
		p.fail(badRequest("if must be none or a whole number from %d to %d, not %s", math.MinInt64, math.MaxInt64, quote(p.text("if"))))
	}
	return db.CounterIf{Asked: true, Value: n}
}

// GET /db/:acc/counter/:id
func getCounter(s *server, c *call) error {
	n, left, err := s.db.CounterTTL(c.key)
	if err != nil {
		return err
	}
	c.sayTTL(left)
	return c.sayNumber(n)
}

// GET and DELETE /db/:acc/counter/:id; the GET in a batch
var readCounter, resetCounter = readNumber(true), resetNumber(true)
