// Bench loads clouddragon and its peers on one machine, taking turns in several rounds, and
// prints one table of figures and ratios. With -before it compares two binaries of the
// server. Run it in the repository's root, after make build; make bench does both.
// docs/performance.md explains how to read the table.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// patience is how long the benchmark waits for a server before it gives up.
const patience = 2 * time.Minute

// options are the flags.
type options struct {
	server, before string        // binaries; before may be empty
	rounds         int           // how often everything is measured, within limit
	limit          time.Duration // how long all rounds may take together; 0: no limit
	seconds        time.Duration // of one measurement
	only, without  regexp.Regexp
	ids, keys      int
	backup         int // in MB
}

func main() {
	// Children are killed when the thread that started them ends, so all of them are started
	// from this one, which lives as long as the process.
	runtime.LockOSThread()
	var o options
	flag.StringVar(&o.server, "server", "bin/clouddragon", "the server's `binary`")
	flag.StringVar(&o.before, "before", "", "another `binary` of the server, to compare with")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each row is measured")
	flag.DurationVar(&o.limit, "limit", 7*time.Minute, "start no round that would end later than this; 0: all rounds")
	seconds := flag.Float64("seconds", 0.5, "how long one measurement is")
	flag.TextVar(&o.only, "only", regexp.MustCompile(""), "measure only the rows whose name matches this `regexp`")
	flag.TextVar(&o.without, "without", regexp.MustCompile("^$"), "leave out the servers whose name matches this `regexp`")
	flag.IntVar(&o.ids, "ids", 100_000, "how many ids a row with many ids has")
	flag.IntVar(&o.keys, "keys", 100_000, "how many keys the row on keys creates")
	flag.IntVar(&o.backup, "backup", 1000, "how many `MB` of values the row on backups stores")
	serve := flag.String("serve-empty", "", "only serve an empty handler on this `address`")
	flag.Parse()
	o.seconds = time.Duration(*seconds * float64(time.Second))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.rounds < 1 || o.seconds <= 0 || min(o.ids, o.keys, o.backup) < 1 || max(o.ids, o.keys, o.backup) >= 100_000_000:
		err = errors.New("-rounds, -seconds, -ids, -keys and -backup take positive numbers, the last three of at most 8 digits")
	case *serve != "":
		err = serveEmpty(*serve)
	default:
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	dir     string // for all data, removed at the end
	targets []*target
}

func run(ctx context.Context, o options) (err error) {
	// letIn needs that many connections, here and in the servers. After Setrlimit the os package does not give
	// children our original limit.
	const files = 16_384
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}); err != nil {
		return fmt.Errorf("%d open files: %w: run it as root, or raise the limit (ulimit -Hn)", files, err)
	}
	rows := slices.DeleteFunc(rows(o), func(r *row) bool { return !o.only.MatchString(r.name) })
	if len(rows) == 0 {
		return fmt.Errorf("-only %s: no row has such a name", &o.only)
	}
	// In bin, which git ignores: the same disk as the repository.
	if err := os.MkdirAll("bin", 0o755); err != nil {
		return err
	}
	b := &bench{options: o}
	if b.dir, err = os.MkdirTemp("bin", "bench-"); err != nil {
		return err
	}
	defer func() {
		for _, t := range b.targets {
			err = errors.Join(err, t.end(os.Kill))
		}
		err = errors.Join(err, os.RemoveAll(b.dir))
	}()
	for _, t := range o.targets() {
		if t, err = b.start(ctx, t); err != nil {
			return err
		}
		b.targets = append(b.targets, t)
		if err := fill(ctx, t, o.ids); err != nil {
			return fmt.Errorf("%s: fill: %w", t.name, err)
		}
	}
	about := b.about()
	rounds, err := b.measure(ctx, rows)
	if err != nil {
		return err
	}
	fmt.Printf(`%s
%d rounds, %v for each measurement. A figure is the median of the rounds. A ratio is taken within each round: it is the median,
with the smallest and the largest in brackets. Over 1 is better for clouddragon, even for times and sizes.

%s`, about, rounds, b.seconds, table(rows, b.targets))
	return nil
}

// measure runs the rounds and returns how many there were. In each, the servers take turns at
// every row, each time beginning with the next server.
func (b *bench) measure(ctx context.Context, rows []*row) (round int, err error) {
	began := time.Now()
	var longest time.Duration // of the rounds so far
	for _, r := range rows {
		r.found = map[string][][]float64{}
	}
	for ; round < b.rounds; round++ {
		start := time.Now()
		if b.limit > 0 && round > 0 && start.Sub(began)+longest > b.limit {
			fmt.Fprintf(os.Stderr, "no time for round %d of %d: see -limit\n", round+1, b.rounds)
			break
		}
		for _, r := range rows {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s, %d\n", round+1, b.rounds, r.name, r.conns)
			for i := range b.targets {
				t := b.targets[(i+round)%len(b.targets)]
				if !r.on(t) {
					continue
				}
				figures, err := r.measure(ctx, b, t)
				if t.name == before && errors.Is(err, errRefused) {
					// The binary may be older than the route.
					fmt.Fprintf(os.Stderr, "left out: %s, %v\n", t.name, err)
					figures, err = slices.Repeat([]float64{math.NaN()}, len(r.figures)), nil
				}
				if err != nil {
					return 0, fmt.Errorf("%s, %s, %d: %w", t.name, r.name, r.conns, cmp.Or(context.Cause(ctx), err))
				}
				r.found[t.name] = append(r.found[t.name], figures)
			}
		}
		longest = max(longest, time.Since(start))
	}
	return round, nil
}
