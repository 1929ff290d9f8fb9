package replica

import "time"

// Locks on disk are held on for a grace after a promotion, as the clocks of two machines
// differ. So the standby compares its clock with the primary's at each beat.

// skewSamples is how many beats are looked at. The time that a beat was on its way makes the
// standby's clock look ahead; of several the least was.
const skewSamples = 8

// maxSkew is the difference from which the log tells of it: it is well below the grace.
const maxSkew = 2 * time.Second

// clocks is how far this server's clock is ahead of the primary's.
type clocks struct {
	samples [skewSamples]time.Duration
	n       int
	skewed  bool // the log has told of it
}

// add takes what one beat says, and returns how far the clock is ahead, about.
func (c *clocks) add(ahead time.Duration) time.Duration {
	c.samples[c.n%skewSamples] = ahead
	c.n++
	return c.skew()
}

// skew is negative if the clock is behind.
func (c *clocks) skew() time.Duration {
	if c.n == 0 {
		return 0
	}
	least := c.samples[0]
	for _, s := range c.samples[:min(c.n, skewSamples)] {
		least = min(least, s)
	}
	return least
}

// noteClocks compares the clocks. It wants s.mu held.
func (s *Standby) noteClocks(primary, own time.Time) {
	skew := s.clocks.add(own.Round(0).Sub(primary)) // without the monotonic clock
	switch far := skew.Abs() >= maxSkew; {
	case far && !s.clocks.skewed:
		s.clocks.skewed = true
		s.o.Log.Warn("the clocks of the two servers differ: after a promotion locks and values can end too early or too late by that; set them by NTP", "this_server_is_ahead_by", skew.Round(time.Millisecond))
	case !far && s.clocks.skewed:
		s.clocks.skewed = false
		s.o.Log.Info("the clocks of the two servers agree again", "this_server_is_ahead_by", skew.Round(time.Millisecond))
	}
}
