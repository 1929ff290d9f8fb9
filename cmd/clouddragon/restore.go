package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"clouddragon/db"
)

const restoreUsage = `usage: clouddragon restore [flags] -data DIR FILE

Makes a data directory from a backup. All of the backup is checked before anything
is made. DIR must be missing or empty; after a failure nothing is left in it.

The server may have continued after the backup. So that no version of a value and
no fencing token is used twice, the next ones are far above those in the backup.

flags:
  -data DIR  the data directory to make
  -keep      leave the next version and token as they are in the backup: only if
             nothing was written after it
  -skip N    advance every sequence in the backup by N
  -help      print this and exit

environment:
  none

exit codes:
  0   restored
  1   the backup or the directory is not good, or the disk failed
  64  a bad flag
`

// restore makes a data directory from a backup and returns the exit code.
func restore(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon restore")
	var o db.RestoreOptions
	flags.StringVar(&o.Dir, "data", "", "")
	flags.BoolVar(&o.Keep, "keep", false, "")
	flags.Int64Var(&o.Skip, "skip", 0, "")
	if code, done := parse(flags, args, restoreUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	switch {
	case o.Dir == "":
		return fail(exitUsage, errors.New("-data DIR is missing"))
	case flags.NArg() != 1:
		return fail(exitUsage, fmt.Errorf("want one FILE, got %d arguments (flags come before it)", flags.NArg()))
	case o.Skip < 0:
		return fail(exitUsage, errors.New("-skip: want a number from 0"))
	}
	file := flags.Arg(0)
	o.Open = func() (io.ReadCloser, error) { return os.Open(file) }
	info, err := os.Stat(file)
	if err != nil {
		return fail(exitFailed, err)
	}
	if !info.Mode().IsRegular() {
		return fail(exitFailed, fmt.Errorf("%s is not a regular file: store the backup in a file, because it is read twice", file))
	}
	o.Size = info.Size()
	p := newProgress(stderr)
	o.Progress = p.report
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	r, err := db.Restore(ctx, o)
	p.clear()
	if err != nil {
		return fail(exitFailed, fmt.Errorf("%s: %w", file, err))
	}
	m := r.Manifest
	fmt.Fprintf(stdout, "%s: restored everything as it was at %s\n", o.Dir, m.Time.Format(time.RFC3339Nano))
	fmt.Fprintf(stdout, "%s in use, %s, %s, made by %s\n",
		plural(r.Report.Slots, "slot"), plural(uint64(r.Report.Values), "value"), plural(uint64(r.Report.Segments), "log segment"), m.Program)
	if o.Keep {
		fmt.Fprintf(stdout, "the next version is above %d, the next fencing token is %d or more, as in the backup\n", r.Version, r.Tokens)
	} else {
		fmt.Fprintf(stdout, "raised: the next version is above %d (was %d), the next fencing token is %d or more (was %d)\n", r.Version, m.Version, r.Tokens, m.Tokens)
	}
	if o.Skip > 0 {
		fmt.Fprintf(stdout, "%s advanced by %d\n", plural(uint64(r.Sequences), "sequence"), o.Skip)
	}
	return exitOK
}
