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

// about describes the machine and the programs.
func (b *bench) about() string {
	facts := "- when: " + time.Now().UTC().Format("2006-01-02 15:04 UTC") +
		"\n- server: " + firstLine(b.server, "-version") + ", commit " + firstLine("git", "describe", "--always", "--dirty", "--tags") +
		fmt.Sprintf("\n- machine: %d × ", runtime.NumCPU()) + firstLine("sed", "-n", "s/^model name.*: //p", "/proc/cpuinfo") +
		"\n- kernel and file system: " + firstLine("uname", "-sr") + ", " + firstLine("stat", "-f", "-c", "%T", b.dir) +
		"\n- load average at the start: " + firstLine("cat", "/proc/loadavg") + "\n"
	for _, t := range b.targets {
		switch t.name {
		case before:
			facts += "- before: " + firstLine(t.program, "-version") + "\n"
		case redis:
			facts += "- Redis, appendfsync always: " + firstLine(t.program, "--version") + "\n"
		case etcd:
			facts += "- " + firstLine(t.program, "--version") + "\n"
		}
	}
	return facts
}

// firstLine returns the first line that a program prints.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return "unknown"
	}
	return line
}

// rounds returns a target's values of a figure, one for each round.
func (r *row) rounds(target string, figure int) []float64 {
	var xs []float64
	for _, figures := range r.found[target] {
		xs = append(xs, figures[figure])
	}
	return xs
}

// table returns a Markdown table with a line for each figure.
func table(rows []*row, targets []*target) string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head := []string{"work", "connections", "", ours}
	for _, t := range targets {
		if t.name != ours {
			head = append(head, "of "+t.name)
		}
	}
	line(head...)
	line(slices.Repeat([]string{"---"}, len(head))...)
	for _, r := range rows {
		for i, f := range r.figures {
			mine := r.rounds(ours, i)
			cells := []string{r.name, strconv.Itoa(r.conns), f.name, number(median(mine))}
			for _, t := range targets {
				if t.name != ours {
					cells = append(cells, ratio(mine, r.rounds(t.name, i), f.less))
				}
			}
			line(cells...)
		}
	}
	return b.String()
}

// ratio compares a with b: over 1 is better for a.
func ratio(a, b []float64, less bool) string {
	var xs []float64
	for i := range min(len(a), len(b)) {
		x := a[i] / b[i]
		if less {
			x = 1 / x
		}
		if !math.IsNaN(x) {
			xs = append(xs, x)
		}
	}
	if len(xs) == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(xs), slices.Min(xs), slices.Max(xs))
}

func median(xs []float64) float64 { return percentile(xs, 50) }

// percentile returns the value that q percent of the figures do not exceed, NaN if there are
// no figures. It interpolates between two figures.
func percentile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	whole, part := math.Modf(q / 100 * float64(len(s)-1))
	i := int(whole)
	return s[i] + part*(s[min(i+1, len(s)-1)]-s[i])
}

// number rounds to three digits.
func number(x float64) string {
	short := strconv.FormatFloat(x, 'g', 3, 64)
	rounded, err := strconv.ParseFloat(short, 64)
	switch {
	case err != nil || math.IsNaN(x):
		return "–"
	case math.Abs(x) < 100:
		return short
	}
	return thousands(int(rounded))
}

func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
