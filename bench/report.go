package main

import (
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is what all measurements found.
type report struct {
	options
	rounds  int
	rows    []*row
	names   []string // of the targets
	machine []string
	samples map[sample][]measured // one a round
}

type sample struct {
	row    *row
	target string
}

func newReport(o options, rows []*row, targets []*target, dir string) report {
	r := report{options: o, rows: rows, samples: map[sample][]measured{}, machine: []string{
		"when: " + time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		"server: " + firstLine(o.server, "-version") + ", commit " + firstLine("git", "describe", "--always", "--dirty", "--tags"),
		fmt.Sprintf("machine: %d × %s", runtime.NumCPU(), firstLine("sed", "-n", "s/^model name.*: //p", "/proc/cpuinfo")),
		"kernel and file system: " + firstLine("uname", "-sr") + ", " + firstLine("stat", "-f", "-c", "%T", dir),
		"load average at the start: " + firstLine("cat", "/proc/loadavg"),
	}}
	if o.before != "" {
		r.machine = append(r.machine, "before: "+firstLine(o.before, "-version"))
	}
	for _, t := range targets {
		r.names = append(r.names, t.name)
		switch t.name {
		case redis:
			r.machine = append(r.machine, "Redis, appendfsync always: "+firstLine("redis-server", "--version"))
		case etcd:
			r.machine = append(r.machine, firstLine("etcd", "--version"))
		}
	}
	return r
}

// firstLine is the first line that a program prints.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return "unknown"
	}
	return line
}

func (r *report) add(w *row, target string, m measured) {
	s := sample{w, target}
	r.samples[s] = append(r.samples[s], m)
}

// figures are what a target did, round by round.
func (r *report) figures(w *row, target string, i int) []float64 {
	var xs []float64
	for _, m := range r.samples[sample{w, target}] {
		xs = append(xs, m.figures[i])
	}
	return xs
}

func (r *report) markdown() string {
	var b strings.Builder
	for _, fact := range r.machine {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	fmt.Fprintf(&b, `
%d rounds, %v a measurement. A figure is the median of the rounds. A ratio is taken within each round; it is the median, with
the least and the most in brackets. Over 1 is better for clouddragon, also where the figure is a time or a size.

`, r.rounds, r.seconds)
	peers := slices.DeleteFunc(slices.Clone(r.names), func(name string) bool { return name == ours })
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head := []string{"work", "connections", "", ours}
	for _, peer := range peers {
		head = append(head, "of "+peer)
	}
	line(append(head, "CPU µs a request")...)
	line(slices.Repeat([]string{"---"}, len(head)+1)...)
	for _, w := range r.rows {
		for i, f := range w.figures {
			mine := r.figures(w, ours, i)
			cells := []string{w.name, strconv.Itoa(w.conns), f.name, number(median(mine))}
			for _, peer := range peers {
				cells = append(cells, ratio(mine, r.figures(w, peer, i), f.less))
			}
			line(append(cells, r.cpu(w, i))...)
		}
	}
	return b.String()
}

// cpu is what a request costs each server, and how that compares with the
// binary before.
func (r *report) cpu(w *row, figure int) string {
	var cells []string
	costs := map[string][]float64{}
	for _, name := range r.names {
		for _, m := range r.samples[sample{w, name}] {
			costs[name] = append(costs[name], m.cpu)
		}
		if m := median(costs[name]); figure == 0 && m > 0 {
			cells = append(cells, fmt.Sprintf("%s %.0f", name, m))
		}
	}
	if len(cells) > 0 && len(costs[before]) > 0 {
		cells = append(cells, "of before "+ratio(costs[ours], costs[before], true))
	}
	return strings.Join(cells, ", ")
}

// ratio says how a compares with b: over 1 is better for a.
func ratio(a, b []float64, less bool) string {
	var xs []float64
	for i := range min(len(a), len(b)) {
		if less {
			xs = append(xs, b[i]/a[i])
		} else {
			xs = append(xs, a[i]/b[i])
		}
	}
	if len(xs) == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(xs), slices.Min(xs), slices.Max(xs))
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	mid := len(s) / 2
	if len(s)%2 == 0 {
		return (s[mid-1] + s[mid]) / 2
	}
	return s[mid]
}

// number rounds to three digits.
func number(x float64) string {
	if math.IsNaN(x) {
		return "–"
	}
	for unit := 1.0; ; unit *= 10 {
		if math.Abs(x) < 1000*unit {
			if unit == 1 && math.Abs(x) < 100 {
				return strconv.FormatFloat(x, 'g', 3, 64)
			}
			return thousands(strconv.FormatFloat(math.Round(x/unit)*unit, 'f', 0, 64))
		}
	}
}

func thousands(digits string) string {
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// percentile returns the smallest time that q percent of the times do not
// exceed, 0 for none. It sorts them.
func percentile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	rank := int(math.Ceil(q*float64(len(times))/100 - 1e-9)) // 99.9 is not exact
	return times[max(rank, 1)-1]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
