package db

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestRateIsExactToANanosecondACall(t *testing.T) {
	for _, c := range []struct {
		rate    Rate
		backlog int64
		cost    int64
		left    int64
		adds    int64
		until   time.Duration
	}{
		{Rate{100, time.Minute, 100}, 0, 1, 100, 6e8, 0},
		{Rate{100, time.Minute, 10}, 0, 10, 10, 6e9, 0},
		{Rate{100, time.Minute, 10}, 1, 10, 9, 6e9, 1},
		{Rate{100, time.Minute, 10}, 6e9, 1, 0, 6e8, 6e8},
		{Rate{3, time.Second, 3}, 999_999_999, 1, 0, 333_333_333, 333_333_333},
		{Rate{3, time.Second, 3}, 666_666_666, 1, 1, 333_333_333, 0},
		{Rate{MaxRate, time.Nanosecond, MaxRate}, 1, 1, 0, 0, 1},
		{Rate{MaxRate, time.Nanosecond, MaxRate}, int64(MaxPer), 1, 0, 0, MaxPer},
		{Rate{1, MaxPer, 1}, 0, 1, 1, int64(MaxPer), 0},
		{Rate{1, MaxPer, 1}, int64(MaxPer), 1, 0, int64(MaxPer), MaxPer},
		// A burst that takes longer than a century is not given at once.
		{Rate{1, MaxPer, MaxRate}, 0, 1, 1, int64(MaxPer), 0},
		{Rate{1, MaxPer, MaxRate}, 1, 1, 0, int64(MaxPer), 1},
		{Rate{1, time.Hour, MaxRate}, 0, MaxRate, 876_000, 1<<63 - 1, MaxPer},
	} {
		if left, adds, until := c.rate.left(c.backlog), c.rate.adds(c.cost), c.rate.until(c.backlog, c.cost); left != c.left || adds != c.adds || until != c.until {
			t.Errorf("%+v with a backlog of %d: %d are left, want %d; %d adds %d, want %d; it is allowed in %v, want %v",
				c.rate, c.backlog, left, c.left, c.cost, adds, c.adds, until, c.until)
		}
	}
}

// someRate is a rate of any size.
func someRate(rnd *rand.Rand) Rate {
	upTo := func(high int64) int64 { return 1 + rnd.Int64N(1+high>>rnd.IntN(62)) }
	return Rate{min(MaxRate, upTo(MaxRate)), min(MaxPer, time.Duration(upTo(int64(MaxPer)))), min(MaxRate, upTo(MaxRate))}
}

// The results for what is left, what is allowed and how long it takes agree with each other
// and with arithmetic on big integers.
func TestRateAgreesWithLargeNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		r := someRate(rnd)
		backlog, cost := rnd.Int64N(1+int64(MaxPer)>>rnd.IntN(62)), 1+rnd.Int64N(r.Burst)
		// allowed: backlog·limit + cost·per ≤ burst·per, and backlog + cost·per/limit ≤ MaxPer
		big := func(a, b int64) *big.Int { return new(big.Int).Mul(big.NewInt(a), big.NewInt(b)) }
		allowed := func(backlog, cost int64) bool {
			paid := big(cost, int64(r.Per))
			use := big(backlog, r.Limit)
			use.Add(use, paid)
			end := big(backlog, r.Limit)
			end.Add(end, paid)
			return use.Cmp(big(r.Burst, int64(r.Per))) <= 0 && end.Cmp(big(int64(MaxPer), r.Limit)) <= 0
		}
		left := r.left(backlog)
		if left < 0 || left > r.Burst || left > 0 && !allowed(backlog, left) || left < r.Burst && allowed(backlog, left+1) {
			t.Fatalf("%+v with a backlog of %d: %d are left", r, backlog, left)
		}
		until := int64(r.until(backlog, cost))
		if allowed(backlog, cost) != (until == 0) || (until == 0) != (cost <= left) {
			t.Fatalf("%+v with a backlog of %d: %d is allowed in %d, %d are left", r, backlog, cost, until, left)
		}
		if until > 0 && until < int64(MaxPer) && (!allowed(backlog-until, cost) || allowed(backlog-until+1, cost)) {
			t.Fatalf("%+v with a backlog of %d: %d is allowed in %d, which is not when", r, backlog, cost, until)
		}
		if until == 0 && (r.adds(cost) < 0 || backlog+r.adds(cost) > int64(MaxPer)) {
			t.Fatalf("%+v with a backlog of %d: %d adds %d", r, backlog, cost, r.adds(cost))
		}
	}
}
