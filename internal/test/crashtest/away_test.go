package crashtest

import (
	"slices"
	"testing"
	"time"
)

// outages lists how long clients were not served in each round.
type outages []time.Duration

// log logs the median and the longest.
func (o outages) log(t *testing.T, what string) {
	if len(o) == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(o))
	t.Logf("%s: away for %.2f s in the median of %d, and %.2f s at most", what, sorted[len(sorted)/2].Seconds(), len(sorted), sorted[len(sorted)-1].Seconds())
}
