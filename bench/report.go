package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// notes begins the part of the results that is written by hand and stays.
const notes = "\n## Notes\n"

// save writes the results into the file.
func (r *results) save(file string) error { return saveAboveNotes(file, r.markdown()) }

// saveAboveNotes writes a text into the file, above the notes that are there.
func saveAboveNotes(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if i := bytes.Index(old, []byte(notes)); i >= 0 {
		text += string(old[i:])
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Results of make bench

Rounds: %d; a measurement took %v. In each round every server gets the same work in turn, in another order, from the same
load generator on the same cores, over loopback. A figure is the median of the rounds, in brackets the least and the
most. A ratio is taken within each round, so that what slows the whole machine cancels out; the absolute figures say
little about another machine. The empty handler is a net/http server with our settings that answers "1" to anything,
through the same script. Redis is asked by redis-benchmark and runs with `+"`appendonly yes`, `appendfsync always`"+`.
How it all changes as the work grows, the memory of 10 million ids, starts and bytes written: [CURVES.md](%s).

![Throughput](%s)

`, r.rounds, r.options.seconds, curvesFile, throughputFile)
	for _, f := range r.machine {
		fmt.Fprintf(&b, "- %s: %s\n", f.name, f.value)
	}
	r.rates(&b)
	r.latencies(&b)
	r.pacedTable(&b)
	r.costs(&b)
	r.floor(&b)
	r.largeTable(&b)
	r.ringTable(&b)
	if r.kills > 0 {
		fmt.Fprintf(&b, "\n## After kill -9\n\n%d times, after a row of durable writes, the server was killed (kill -9) and started again, and "+
			"each time all that it had acknowledged was there, and nothing twice.\n", r.kills)
	}
	return b.String()
}

// table writes the head of a table and returns what writes its lines.
func table(b *strings.Builder, title string, columns ...string) func(cells ...string) {
	fmt.Fprintf(b, "\n## %s\n\n| %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	return func(cells ...string) {
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

func (r *results) rates(b *strings.Builder) {
	if len(r.rows) == 0 {
		return
	}
	line := table(b, "Requests a second", "work", "connections", ours, empty, "of the empty handler", redis, "of Redis", etcd)
	for _, row := range r.rows {
		for _, conns := range row.conns {
			of := func(target string) []float64 { return r.of(measured{row, conns, target}, rate) }
			mine := rates(of(ours))
			if err := r.notServed[row]; err != nil {
				mine = "not served (" + err.Error() + ")"
			}
			line(row.name, strconv.Itoa(conns), mine, rates(of(empty)), ratio(of(ours), of(empty)),
				rates(of(redis)), ratio(of(ours), of(redis)), rates(of(etcd)))
		}
	}
	b.WriteString("\nA mutex or lock row locks and unlocks free ids in turn; each is a request.\n")
}

func (r *results) latencies(b *strings.Builder) {
	if len(r.rows) == 0 {
		return
	}
	const conns = 64
	line := table(b, "Latency at 64 connections, under full load: p50 / p99 / p99.9 in µs", "work", ours, empty, redis)
	for _, row := range r.rows {
		cell := func(target string) string {
			of := func(p func(sample) time.Duration) float64 {
				return summarize(r.of(measured{row, conns, target}, func(s sample) float64 { return micros(p(s)) })).median
			}
			return number(of(func(s sample) time.Duration { return s.p50 })) + " / " +
				number(of(func(s sample) time.Duration { return s.p99 })) + " / " +
				number(of(func(s sample) time.Duration { return s.p999 }))
		}
		line(row.name, cell(ours), cell(empty), cell(redis))
	}
	b.WriteString("\nredis-benchmark does not tell p99.9.\n")
}

func (r *results) costs(b *strings.Builder) {
	if len(r.rows) == 0 {
		return
	}
	line := table(b, "What a request costs the server: CPU time in µs, context switches", "work", "connections", ours, empty, redis)
	for _, row := range r.rows {
		for _, conns := range row.conns {
			cell := func(target string) string {
				m := measured{row, conns, target}
				cpu := summarize(r.of(m, func(s sample) float64 { return micros(s.cpu) })).median
				switches := summarize(r.of(m, func(s sample) float64 { return s.switches })).median
				if math.IsNaN(cpu) {
					return none
				}
				return fmt.Sprintf("%.1f µs, %.2f", cpu, switches)
			}
			line(row.name, strconv.Itoa(conns), cell(ours), cell(empty), cell(redis))
		}
	}
}

func p50(t times) time.Duration { return t.p50 }
func p99(t times) time.Duration { return t.p99 }

func (r *results) floor(b *strings.Builder) {
	if len(r.zeroedSyncs) == 0 {
		return
	}
	line := table(b, "One connection: p50 in µs", "what", "µs")
	zeroed := medianOf(r.zeroedSyncs, p50)
	line("write of 512 bytes and fdatasync, in a file filled with zeros", number(zeroed))
	line("the same at the end of a file that grows", number(medianOf(r.growingSyncs, p50)))
	for _, row := range r.rows {
		if row.counted() && row.conns[0] == 1 && r.notServed[row] == nil {
			median := func(target string) float64 {
				return summarize(r.of(measured{row, 1, target}, func(s sample) float64 { return micros(s.p50) })).median
			}
			trip, mine := median(empty), median(ours)
			line("empty round trip, as "+row.name, number(trip))
			line(row.name, fmt.Sprintf("%s, %.2f of fdatasync and round trip", number(mine), mine/(zeroed+trip)))
		}
	}
}

func (r *results) ringTable(b *strings.Builder) {
	if len(r.rings) == 0 {
		return
	}
	line := table(b, "Hand-over of a lock: from the unlock sent to the grant received, in µs", "lock", "waiters", "p50", "p99", "two empty round trips", "ratio of p50")
	for _, row := range r.rings {
		for _, n := range waiters {
			took := r.handOvers[handOver{row, n}]
			trips := 2 * medianOf(r.trips[row], p50)
			if err := r.notServed[row]; err != nil {
				line(row.api, strconv.Itoa(n), "not served ("+err.Error()+")", none, number(trips), none)
				continue
			}
			mine := medianOf(took, p50)
			line(row.api, strconv.Itoa(n), number(mine), number(medianOf(took, p99)), number(trips), fmt.Sprintf("%.2f", mine/trips))
		}
	}
}

// none stands where there is no figure.
const none = "–"

func rates(xs []float64) string {
	if len(xs) == 0 {
		return none
	}
	s := summarize(xs)
	return fmt.Sprintf("%s (%s–%s)", number(s.median), number(s.min), number(s.max))
}

func ratio(a, b []float64) string {
	if len(a) == 0 || len(b) == 0 {
		return none
	}
	s := summarize(ratios(a, b))
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.median, s.min, s.max)
}

// number is three digits' worth of a figure, or none for 0 and for NaN.
func number(x float64) string {
	if math.IsNaN(x) || x == 0 {
		return none
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(x)))-2)
	return thousands(math.Round(math.Round(x/unit) * unit))
}

// thousands is a whole number with commas.
func thousands(x float64) string {
	s := strconv.FormatFloat(x, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
