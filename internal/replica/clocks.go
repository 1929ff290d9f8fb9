package replica

import "time"

// After a promotion locks on disk are held for a grace period longer, because the clocks of
// two machines differ. The standby compares its clock with the primary's at each beat, so
// that an operator learns of a difference larger than that. It also compares the database times,
// and if its own is ahead, the grace period is longer by that.

// skewSamples is how many beats are considered. A beat's travel time makes the standby's
// clock look ahead, so the smallest of several samples is the most accurate.
const skewSamples = 8

// maxSkew is the skew from which on a warning is logged. It is well below the grace period.
const maxSkew = 2 * time.Second

// clocks measures how far this server's clock is ahead of the primary's.
type clocks struct {
	samples [skewSamples]time.Duration
	n       int
	skewed  bool // a warning was logged
}

// add adds one sample and returns the new estimate.
func (c *clocks) add(ahead time.Duration) time.Duration {
	c.samples[c.n%skewSamples] = ahead
	c.n++
	return c.skew()
}

// skew returns the estimate. It is negative if this clock is behind.
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

// Ahead returns by how much this server's database time is ahead of the primary's: locks end
// that much too early here. It is 0 if this server is behind.
func (s *Standby) Ahead() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.times.skew())
}

// noteClocks compares the clocks. The caller holds s.mu.
func (s *Standby) noteClocks(primary, own time.Time) {
	skew := s.clocks.add(own.Round(0).Sub(primary)) // without the monotonic clock
	switch far := skew.Abs() >= maxSkew; {
	case far && !s.clocks.skewed:
		s.clocks.skewed = true
		s.o.Log.Warn("the clocks of the two servers differ: after a promotion locks and values can expire too early or too late by that much; synchronize them with NTP", "this_server_is_ahead_by", skew.Round(time.Millisecond))
	case !far && s.clocks.skewed:
		s.clocks.skewed = false
		s.o.Log.Info("the clocks of the two servers agree again", "this_server_is_ahead_by", skew.Round(time.Millisecond))
	}
}
