// Bench loads clouddragon and its peers side by side on one machine, in turn
// and over and over, and writes what came of it to bench/RESULTS.md. With -long it
// measures how throughput and memory change as the work grows, and writes
// bench/CURVES.md and its pictures. It runs in the repository's root; make bench
// builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	server  string        // the binary
	rounds  int           // how often all is measured, if there is time
	limit   time.Duration // how long all rounds may take; 0: as long as they take
	seconds time.Duration // of one measurement
	only    *regexp.Regexp
	keys    int    // ids that a row is spread over
	most    int    // ids at the end of the curve
	logMiB  int    // of values at the end of the curve
	threads int    // of wrk
	out     string // the file for the results; empty: none
}

func main() {
	// A child that dies with the thread that started it needs a thread that
	// lives as long as we do: all of them are started from here.
	runtime.LockOSThread()
	var o options
	flag.StringVar(&o.server, "server", "bin/clouddragon", "the server's `binary`")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each row is measured; with -long at most 3")
	flag.DurationVar(&o.limit, "limit", 430*time.Second, "begin no round that would end later than this; 0: all rounds")
	seconds := flag.Float64("seconds", 0.5, "how long one measurement is")
	only := flag.String("only", "", "measure only the rows whose name matches this `regexp`, and print only")
	flag.IntVar(&o.keys, "keys", 100_000, "how many ids a row with many ids has")
	long := flag.Bool("long", false, "instead measure curves, memory, starts and bytes written (about 25 minutes)")
	flag.IntVar(&o.most, "ids", 10_000_000, "with -long, up to how many ids")
	flag.IntVar(&o.logMiB, "log", 4096, "with -long, up to how many MiB of values in the log")
	flag.IntVar(&o.threads, "threads", 2, "wrk's threads")
	flag.StringVar(&o.out, "out", "bench/RESULTS.md", "the `file` for the results")
	empty := flag.String("serve-empty", "", "only serve an empty handler on this `address`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case *empty != "":
		err = serveEmpty(ctx, *empty)
	case o.rounds < 1 || *seconds <= 0 || o.keys < 1 || o.threads < 1 || o.most < 1 || o.logMiB < 1:
		err = errors.New("-rounds, -seconds, -keys, -threads, -ids and -log take positive numbers")
	default:
		o.seconds = time.Duration(*seconds * float64(time.Second))
		if o.only, err = regexp.Compile(*only); err != nil {
			break
		}
		if *only != "" {
			o.out = ""
		}
		err = run(ctx, o, *long)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run makes room for the data and starts the run.
func run(ctx context.Context, o options, long bool) (err error) {
	if err := raiseFiles(); err != nil {
		return err
	}
	dir, err := sameDisk()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if long {
		return runLong(ctx, o, dir)
	}
	return runRounds(ctx, o, dir)
}

// runRounds measures all rounds, and prints and writes the results.
func runRounds(ctx context.Context, o options, dir string) error {
	began := time.Now()
	b := &bench{options: o, dir: dir}
	defer b.end()
	if err := b.begin(ctx); err != nil {
		return err
	}
	var longest time.Duration // of the rounds so far
	for round := range o.rounds {
		if o.limit > 0 && round > 0 && time.Since(began)+longest > o.limit {
			fmt.Fprintf(os.Stderr, "no time for round %d of %d: see -limit\n", round+1, o.rounds)
			break
		}
		start := time.Now()
		if err := b.round(ctx, round); err != nil {
			return err
		}
		longest = max(longest, time.Since(start))
	}
	fmt.Print(b.results.markdown())
	if o.out == "" {
		return nil
	}
	return b.results.save(o.out)
}
