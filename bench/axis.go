package main

import (
	"math"
	"strconv"
)

// axis maps figures to places in a picture.
type axis struct {
	min, max float64 // the figures at its ends
	log      bool
	from, to float64 // the places of its ends
	ticks    []float64
	label    func(float64) string
}

// newAxis returns an axis that has room for all figures. A linear one begins at 0.
// base is that of the ticks of a logarithmic one; 0: linear.
func newAxis(figures []float64, base float64, from, to float64, label func(float64) string) axis {
	a := axis{log: base > 0, from: from, to: to, label: label}
	least, most := math.Inf(1), math.Inf(-1)
	for _, f := range figures {
		least, most = min(least, f), max(most, f)
	}
	if len(figures) == 0 {
		least, most = 1, 1
	}
	if a.log {
		a.ticks = logTicks(least, most, base)
	} else {
		a.ticks = linearTicks(most)
	}
	a.min, a.max = a.ticks[0], a.ticks[len(a.ticks)-1]
	return a
}

// place is where a figure stands. An axis of one tick has it at its beginning.
func (a axis) place(x float64) float64 {
	at := func(x float64) float64 {
		if a.log {
			return math.Log(x)
		}
		return x
	}
	if a.max == a.min {
		return a.from
	}
	return a.from + (a.to-a.from)*(at(x)-at(a.min))/(at(a.max)-at(a.min))
}

// ticksMost is how many ticks fit.
const ticksMost = 6

// linearTicks are round numbers in equal steps from 0 to the most or just beyond.
func linearTicks(most float64) []float64 {
	if most <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(most))) / 10
	for i := 0; most/step > ticksMost-1; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10 …
	}
	ticks := []float64{0}
	for i := 1; ticks[i-1] < most; i++ {
		ticks = append(ticks, float64(i)*step)
	}
	return ticks
}

// logTicks are powers of the base, every one or every second or third …, from the
// least or just under to the most or just beyond.
func logTicks(least, most, base float64) []float64 {
	const exact = 1e-9 // a logarithm is not
	first := math.Floor(math.Log(least)/math.Log(base) + exact)
	last := math.Ceil(math.Log(most)/math.Log(base) - exact)
	step := math.Max(1, math.Ceil((last-first)/(ticksMost-1)))
	ticks := []float64{math.Pow(base, first)}
	for e := first; e < last; {
		e += step
		ticks = append(ticks, math.Pow(base, e))
	}
	return ticks
}

// short is a number with the letter of its thousands: 1, 20k, 5M.
func short(x float64) string { return scaled(x, 1000, []string{"", "k", "M", "G"}) }

// bytesShort is a number of bytes: 64 B, 1 KiB, 8 MiB.
func bytesShort(x float64) string { return scaled(x, 1024, []string{" B", " KiB", " MiB", " GiB"}) }

func scaled(x, base float64, units []string) string {
	i := 0
	for ; i < len(units)-1 && math.Abs(x) >= base; i++ {
		x /= base
	}
	return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) + units[i]
}
