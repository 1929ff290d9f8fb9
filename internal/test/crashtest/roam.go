package crashtest

import (
	"math/rand/v2"
	"time"
)

const (
	// changeAfter is how long a client that knows several servers waits for an answer.
	changeAfter = 3 * time.Second
	// thinkTime is what such a client waits before its next call, or the next try.
	thinkTime = 5 * time.Millisecond
)

// change goes on after a call that was not served, with another of the servers or the
// same one: so a server that was replaced is asked as well. It returns false if there are none.
func (c *client) change(servers []string, rng *rand.Rand) bool {
	if len(servers) == 0 {
		return false
	}
	time.Sleep(thinkTime)
	if rng.IntN(2) == 0 {
		c.close()
		c.addr = pick(rng, servers)
	}
	return true
}
