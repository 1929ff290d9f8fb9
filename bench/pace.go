package main

import "time"

// pace is when the requests of a load are to be sent, whether or not those
// before are answered. A server that stalls does not slow it down, so what would
// have been asked meanwhile counts with the time that it would have waited.
type pace struct {
	rate float64       // requests a second; 0: as soon as a connection is free
	n    int           // requests; 0: for a time
	d    time.Duration // if n is 0
}

// at is when request i is to be sent, from the start. With no rate that is now.
func (p pace) at(i int, now time.Duration) time.Duration {
	if p.rate == 0 {
		return now
	}
	return time.Duration(float64(i) / p.rate * float64(time.Second))
}

// over says whether request i is not to be sent any more.
func (p pace) over(i int, now time.Duration) bool {
	if p.n > 0 {
		return i >= p.n
	}
	return p.at(i, now) >= p.d
}
