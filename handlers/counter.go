package handlers

import "math"

// POST /db/:acc/counter/:id?add=&min=&max=
func addCounter(s *server, c *call) error {
	add := c.params.number("add", 1, math.MinInt64, math.MaxInt64)
	low := c.params.number("min", math.MinInt64, math.MinInt64, math.MaxInt64)
	high := c.params.number("max", math.MaxInt64, math.MinInt64, math.MaxInt64)
	if c.params.bad != nil {
		return c.params.bad
	}
	if low > high {
		return badRequest("min=%d is over max=%d", low, high)
	}
	n, err := s.db.AddCounter(c.key, add, low, high)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

// GET /db/:acc/counter/:id
func getCounter(s *server, c *call) error {
	n, err := s.db.Counter(c.key)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

// DELETE /db/:acc/counter/:id
func resetCounter(s *server, c *call) error {
	if err := s.db.ResetCounter(c.key); err != nil {
		return err
	}
	return c.sayDone()
}
