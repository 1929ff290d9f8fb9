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
	"clouddragon/internal/job"
	_ "clouddragon/internal/job/early" // runs lock
	"clouddragon/internal/logqueue"
	"clouddragon/internal/systemd"
)

// Exit codes. 2 is not used, because the Go runtime exits with it.
const (
	exitOK     = 0
	exitFailed = 1  // any other failure
	exitUsage  = 64 // a bad flag or command
	exitConfig = 78 // a bad configuration
)

const usage = `usage: clouddragon [-config FILE]           serve
       clouddragon lock NAME COMMAND...     run a command under a lock
       clouddragon status                   who holds which lock, and who waits
       clouddragon backup -o FILE           store a copy of a running server
       clouddragon restore -data DIR FILE   make a data directory from a backup
       clouddragon verify DIR               check a data directory of a stopped server, or a copy
       clouddragon move [flags]             move an account to another server
       clouddragon promote -data DIR        make a standby the primary
       clouddragon config -check FILE       check a configuration, or print it with -print

Each command has -help.

flags:
  -config FILE  the configuration (default ./config.yml)
  -version      print the version and exit
  -help         print this and exit

environment:
  CLOUDDRAGON_TOKEN  the token with full access, instead of the key token in the configuration
  NOTIFY_SOCKET      where to tell systemd that the server is ready, reloads or stops
  WATCHDOG_USEC      how often to tell systemd that the writer works (with WATCHDOG_PID)
  LISTEN_FDS         systemd passes the socket, which replaces the key listen (with LISTEN_PID)

signals:
  TERM, INT  stop: answer active requests, and exit within 10 seconds;
             another signal, at least a second later, exits at once
  HUP        reload the tokens and the TLS certificate

exit codes:
  0   stopped by a signal
  1   it could not start, or the disk failed
  64  a bad flag or command
  78  a bad configuration
`

// version is set by the linker.
var version string

func main() {
	stderr := logqueue.New(os.Stderr)
	code := run(os.Args[1:], os.Stdout, stderr)
	stderr.Close(logqueue.FlushTime)
	os.Exit(code)
}

// droppedOf returns a function that counts the dropped lines of a queued log, or nil.
func droppedOf(stderr io.Writer) func() uint64 {
	if q, ok := stderr.(*logqueue.Queue); ok {
		return q.Dropped
	}
	return nil
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case job.Command: // in tests; the program itself runs it in package early
			return lock(args[1:], stdout, stderr)
		case job.KeeperCommand:
			return keepLock(args[1:], stdout, stderr)
		case "status":
			return status(args[1:], stdout, stderr)
		case "backup":
			return backup(args[1:], stdout, stderr)
		case "restore":
			return restore(args[1:], stdout, stderr)
		case "move":
			return move(args[1:], stdout, stderr)
		case "verify":
			return verify(args[1:], stdout, stderr)
		case "promote":
			return promote(args[1:], stdout, stderr)
		case "config":
			return configure(args[1:], stdout, stderr)
		}
	}
	flags := newFlags("clouddragon")
	file := flags.String("config", "config.yml", "")
	showVersion := flags.Bool("version", false, "")
	if code, done := parse(flags, args, usage, stdout, stderr); done {
		return code
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "clouddragon: unknown command %q\n%s", flags.Arg(0), usage)
		return exitUsage
	}
	if *showVersion {
		fmt.Fprintf(stdout, "clouddragon %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	}
	// The server must continue if the reader of stderr is gone.
	signal.Ignore(syscall.SIGPIPE)
	stop, reload := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	config := func() (Config, error) { return LoadConfig(*file, os.Getenv) }
	log := slog.New(slog.NewTextHandler(stderr, nil))
	supervisor := newSupervisor(log)
	c, err := config()
	if err != nil {
		supervisor.tell(systemd.Status("bad configuration: %v", err))
		fmt.Fprintf(stderr, "clouddragon: %v\n", err)
		return exitConfig
	}
	// Signals are caught only from here on. So until then a signal ends a process that hangs
	// while it reads one of those files.
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	for _, w := range c.warnings {
		log.Warn(w)
	}
	socket, code, err := passedSocket(c)
	if err != nil {
		supervisor.tell(systemd.Status("cannot use the socket of systemd: %v", err))
		fmt.Fprintf(stderr, "clouddragon: %v\n", err)
		return code
	}
	return serve(disk.OS{}, c, environment{
		log: log, dropped: droppedOf(stderr), stop: stop, reload: reload, config: config,
		socket: socket, systemd: supervisor,
	})
}

func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse parses flags. done is true if help was printed or a flag is bad; then the command
// ends with the exit code.
func parse(flags *flag.FlagSet, args []string, usage string, stdout, stderr io.Writer) (code int, done bool) {
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK, true
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v: see %[1]s -help\n", flags.Name(), err)
		return exitUsage, true
	}
	return exitOK, false
}

// failer returns a function that prints an error of a command and returns its exit code.
func failer(flags *flag.FlagSet, stderr io.Writer) func(code int, err error) int {
	return func(code int, err error) int {
		fmt.Fprintf(stderr, "%s: %v\n", flags.Name(), err)
		return code
	}
}

// versionText returns the version that the linker has set or the go command has recorded.
func versionText() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
