package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// long is the run that takes long: what changes as the work grows.
type long struct {
	options
	dir     string
	machine []fact
	sweeps  []*sweep
	ram     []keyMemory
	starts  []startTime
	written []amplification
	kills   int
}

// longRounds is how often each place of a curve is measured.
const longRounds = 3

// runLong measures all curves, and prints and writes them.
func runLong(ctx context.Context, o options, dir string) error {
	l := &long{options: o, dir: dir, machine: machine(dir, o.server)}
	l.rounds = min(o.rounds, longRounds)
	done := false
	for _, j := range []struct {
		name string
		run  func(ctx context.Context, dir string) error
	}{
		{"connections", l.connections},
		{"value size", l.valueSize},
		{"log size", l.logSize},
		{"cores", l.cores},
		{"bytes written", l.bytesWritten},
		{"ids", l.ids},
	} {
		if !o.only.MatchString(j.name) {
			continue
		}
		done = true
		fmt.Fprintln(os.Stderr, j.name)
		if err := l.in(ctx, j.run); err != nil {
			if ctx.Err() != nil { // which ended the servers
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	if !done {
		return fmt.Errorf("-only %s: no curve has such a name", o.only)
	}
	text := l.markdown()
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return l.save(filepath.Dir(o.out), text)
}

// in runs with a directory of its own, which takes up no room later.
func (l *long) in(ctx context.Context, run func(context.Context, string) error) (err error) {
	dir, err := os.MkdirTemp(l.dir, "long")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return run(ctx, dir)
}

// The files of the long run, beside that of the other.
const (
	curvesFile     = "CURVES.md"
	throughputFile = "throughput.svg"
	memoryFile     = "memory.svg"
)

func (l *long) save(dir, text string) error {
	var throughput, memory []panel
	for _, s := range l.sweeps {
		throughput, memory = append(throughput, s.throughput()), append(memory, s.inMemory())
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, throughputFile), []byte(picture(throughput)), 0o644),
		os.WriteFile(filepath.Join(dir, memoryFile), []byte(picture(memory)), 0o644),
		saveAboveNotes(filepath.Join(dir, curvesFile), text))
}

func (l *long) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# How it grows

The long run of make bench (`+"`make bench BENCH=-long`"+`). Each place of a curve was measured %d times for %v, every server in
turn; a figure is the median, in brackets the least and the most, and a ratio is taken between neighbours in time. The
load comes from bench's own generator, as fast as it is answered. Redis runs with `+"`appendonly yes`, `appendfsync always`"+`.

`, l.rounds, 2*l.seconds)
	for _, f := range l.machine {
		fmt.Fprintf(&b, "- %s: %s\n", f.name, f.value)
	}
	if len(l.sweeps) > 0 {
		fmt.Fprintf(&b, "\n![Throughput](%s)\n\n![Memory](%s)\n", throughputFile, memoryFile)
	}
	for _, s := range l.sweeps {
		s.write(&b)
	}
	l.ramTable(&b)
	l.startsTable(&b)
	l.writtenTable(&b)
	if l.kills > 0 {
		fmt.Fprintf(&b, "\n## After kill -9\n\n%d times the server was killed (kill -9) and started again after durable writes, and each time all "+
			"that it had acknowledged was there.\n", l.kills)
	}
	return b.String()
}
