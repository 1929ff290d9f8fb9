package crashtest

import (
	"math/rand/v2"
	"time"
)

const (
	// changeAfter is how long a client that knows several servers waits for an answer.
	changeAfter = 3 * time.Second
	// thinkTime is how long such a client waits before its next call or attempt.
	thinkTime = 5 * time.Millisecond
)

// change picks a server at random after a call that was not served. It may be the same one, so
// that replaced servers are asked as well. It returns false if there are no servers to pick
// from.
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
