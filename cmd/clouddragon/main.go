// Clouddragon serves sequences, counters, locks and values over HTTP.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"clouddragon/internal/disk"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it did not start, or the disk failed; verify: damage
	exitUsage  = 2 // a bad flag or configuration
)

const usage = `usage: clouddragon [-config FILE]     serve
       clouddragon verify -data DIR  check a data directory, of a stopped server or a copy

  -config FILE  the configuration; without it ./config.yml
  -version      print the version and exit
`

// version is set when the program is linked.
var version string

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "verify" {
		return verify(args[1:], stdout, stderr)
	}
	flags := newFlags("clouddragon")
	file := flags.String("config", "config.yml", "")
	showVersion := flags.Bool("version", false, "")
	if code, done := parse(flags, args, usage, stdout, stderr); done {
		return code
	}
	if *showVersion {
		fmt.Fprintf(stdout, "clouddragon %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	}
	c, cert, err := LoadConfig(*file, os.Getenv)
	if err != nil {
		fmt.Fprintf(stderr, "clouddragon: %v\n", err)
		return exitUsage
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	return serve(disk.OS{}, c, cert, slog.New(slog.NewTextHandler(stderr, nil)), signals)
}

func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse reads flags, and nothing but flags. It is done, with an exit code, if
// help was asked for or there is a fault.
func parse(flags *flag.FlagSet, args []string, usage string, stdout, stderr io.Writer) (code int, done bool) {
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK, true
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n%s", flags.Name(), err, usage)
		return exitUsage, true
	}
	return exitOK, false
}

// versionText is the version that was linked in, or the one that the go command recorded.
func versionText() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
