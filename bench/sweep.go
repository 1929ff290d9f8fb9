package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sweep is how throughput and memory change as one thing grows.
type sweep struct {
	name    string // of what grows
	unit    func(float64) string
	base    float64 // of its ticks in the pictures
	about   string  // what was measured
	xs      []float64
	targets []string             // the first is the one that the others are held against
	rates   map[swept][]float64  // requests a second, in the order of the rounds
	memory  map[swept]int64      // bytes
	more    map[float64][]string // cells of more columns
	columns []string             // their names
}

// swept is one place of a curve.
type swept struct {
	x      float64
	target string
}

func newSweep(name string, unit func(float64) string, base float64, about string, targets ...string) *sweep {
	return &sweep{name: name, unit: unit, base: base, about: about, targets: targets,
		rates: map[swept][]float64{}, memory: map[swept]int64{}, more: map[float64][]string{}}
}

func (s *sweep) addRate(x float64, target string, rate float64) {
	if !slices.Contains(s.xs, x) {
		s.xs = append(s.xs, x)
	}
	at := swept{x, target}
	s.rates[at] = append(s.rates[at], rate)
}

func (s *sweep) write(b *strings.Builder) {
	columns := []string{s.name}
	for i, t := range s.targets {
		columns = append(columns, t)
		if i > 0 {
			columns = append(columns, s.targets[0]+" of "+t)
		}
	}
	for _, t := range s.targets {
		if s.hasMemory(t) {
			columns = append(columns, "memory of "+t)
		}
	}
	line := table(b, strings.ToUpper(s.name[:1])+s.name[1:], append(columns, s.columns...)...)
	for _, x := range s.xs {
		cells := []string{s.unit(x)}
		for i, t := range s.targets {
			cells = append(cells, rates(s.rates[swept{x, t}]))
			if i > 0 {
				cells = append(cells, ratio(s.rates[swept{x, s.targets[0]}], s.rates[swept{x, t}]))
			}
		}
		for _, t := range s.targets {
			if !s.hasMemory(t) {
				continue
			}
			if m := s.memory[swept{x, t}]; m > 0 {
				cells = append(cells, mib(m))
			} else {
				cells = append(cells, none)
			}
		}
		line(append(cells, s.more[x]...)...)
	}
	fmt.Fprintf(b, "\n%s\n", s.about)
}

func (s *sweep) hasMemory(target string) bool {
	return slices.ContainsFunc(s.xs, func(x float64) bool { return s.memory[swept{x, target}] > 0 })
}

// throughput is the panel of the rates.
func (s *sweep) throughput() panel {
	return s.panel("Throughput", "requests a second", func(at swept) float64 {
		return summarize(s.rates[at]).median // NaN where there is none, which is not over 0
	})
}

// inMemory is the panel of the memory.
func (s *sweep) inMemory() panel {
	return s.panel("Memory", "RSS in MiB", func(at swept) float64 { return float64(s.memory[at]) / (1 << 20) })
}

// panel draws a figure, which is over 0 where it was taken. Figures
// that are far apart need a logarithmic axis.
func (s *sweep) panel(what, unit string, figure func(swept) float64) panel {
	p := panel{title: what + " over " + s.name, x: s.name, y: unit, xLabel: s.unit, yLabel: short, xBase: s.base}
	least, most := math.Inf(1), 0.0
	for _, t := range s.targets {
		c := curve{name: t}
		for _, x := range s.xs {
			if y := figure(swept{x, t}); y > 0 {
				c.points = append(c.points, point{x, y})
				least, most = min(least, y), max(most, y)
			}
		}
		p.curves = append(p.curves, c)
	}
	if most > 30*least {
		p.yBase = 10
	}
	return p
}
