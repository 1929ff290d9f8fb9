// Bench loads clouddragon and its peers on one machine, in turn and over and
// over, and prints one table of figures and ratios. With -before it compares two
// binaries of the server. It runs in the repository's root; make bench builds
// what it needs. docs/performance.md says how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long anything may take that is not measured for a time.
const patience = time.Minute

// options are the flags.
type options struct {
	server, before string        // binaries; before may be empty
	rounds         int           // how often everything is measured, if there is time
	limit          time.Duration // how long all rounds may take; 0: as long as they take
	seconds        time.Duration // of one measurement
	only           *regexp.Regexp
	without        *regexp.Regexp
	ids            int
	out            string // a file for the report; empty: none
}

func main() {
	// A child that dies with the thread that started it needs a thread that lives
	// as long as this process: all children are started from this one.
	runtime.LockOSThread()
	var o options
	flag.StringVar(&o.server, "server", "bin/clouddragon", "the server's `binary`")
	flag.StringVar(&o.before, "before", "", "another `binary` of the server, to compare with")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each row is measured")
	flag.DurationVar(&o.limit, "limit", 7*time.Minute, "begin no round that would end later than this; 0: all rounds")
	seconds := flag.Float64("seconds", 0.5, "how long one measurement is")
	only := flag.String("only", "", "measure only the rows whose name matches this `regexp`")
	without := flag.String("without", "^$", "leave out the servers whose name matches this `regexp`")
	flag.IntVar(&o.ids, "ids", 100_000, "how many ids a row with many ids has")
	flag.StringVar(&o.out, "out", "", "a `file` for the table, besides stdout")
	serve := flag.String("serve-empty", "", "only serve an empty handler on this `address`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err, err2 error
	o.seconds = time.Duration(*seconds * float64(time.Second))
	o.only, err = regexp.Compile(*only)
	o.without, err2 = regexp.Compile(*without)
	switch err = errors.Join(err, err2); {
	case err != nil:
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.rounds < 1 || o.seconds <= 0 || o.ids < 1:
		err = errors.New("-rounds, -seconds and -ids take positive numbers")
	case *serve != "":
		err = serveEmpty(ctx, *serve)
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
	report  report
}

func run(ctx context.Context, o options) (err error) {
	if err := raiseFiles(); err != nil {
		return err
	}
	// In bin, which git ignores: the same disk as the repository.
	if err := os.MkdirAll("bin", 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("bin", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{options: o}
	if b.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	defer func() {
		for _, t := range b.targets {
			t.process.kill()
		}
	}()
	rows := slices.DeleteFunc(rows(o.ids), func(r *row) bool { return !o.only.MatchString(r.name) })
	if len(rows) == 0 {
		return fmt.Errorf("-only %s: no row has such a name", o.only)
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	b.report = newReport(o, rows, b.targets, b.dir)
	if err := b.measure(ctx, rows); err != nil {
		return err
	}
	text := b.report.markdown()
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// start starts and fills all servers.
func (b *bench) start(ctx context.Context) error {
	all, err := b.options.targets()
	if err != nil {
		return err
	}
	for _, t := range all {
		if b.without.MatchString(t.name) {
			continue
		}
		dir := filepath.Join(b.dir, strings.ReplaceAll(t.name, " ", "-"))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if t.process, err = t.start(ctx, dir); err != nil {
			return err
		}
		b.targets = append(b.targets, t)
		if err := fill(ctx, t, b.ids); err != nil {
			return fmt.Errorf("%s: fill: %w", t.name, err)
		}
	}
	return nil
}

// measure does all rounds. In each the servers take turns at every row, and
// another one begins.
func (b *bench) measure(ctx context.Context, rows []*row) error {
	began := time.Now()
	var longest time.Duration // of the rounds so far
	for round := range b.rounds {
		if b.limit > 0 && round > 0 && time.Since(began)+longest > b.limit {
			fmt.Fprintf(os.Stderr, "no time for round %d of %d: see -limit\n", round+1, b.rounds)
			break
		}
		start := time.Now()
		for _, r := range rows {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s, %d\n", round+1, b.rounds, r.name, r.conns)
			for i := range b.targets {
				t := b.targets[(i+round)%len(b.targets)]
				if !r.on[t.speak] {
					continue
				}
				m, err := r.run(ctx, b, t)
				switch {
				case ctx.Err() != nil:
					return context.Cause(ctx)
				case err != nil:
					return fmt.Errorf("%s, %s, %d: %w", t.name, r.name, r.conns, err)
				default:
					b.report.add(r, t.name, m)
				}
			}
		}
		longest = max(longest, time.Since(start))
		b.report.rounds++
	}
	return nil
}
