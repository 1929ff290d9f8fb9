package handlers

import "clouddragon/db"

// POST /db/:acc/sequence/:id?n=
func addSequence(s *server, c *call) error {
	n := c.params.number("n", 1, 1, db.MaxBlock)
	if c.params.bad != nil {
		return c.params.bad
	}
	last, err := s.db.AddSequence(c.key, n)
	if err != nil {
		return err
	}
	return c.sayNumber(last)
}

// GET /db/:acc/sequence/:id
func getSequence(s *server, c *call) error {
	n, err := s.db.Sequence(c.key)
	if err != nil {
		return err
	}
	return c.sayNumber(n)
}

// DELETE /db/:acc/sequence/:id
func resetSequence(s *server, c *call) error {
	if err := s.db.ResetSequence(c.key); err != nil {
		return err
	}
	return c.sayDone()
}
