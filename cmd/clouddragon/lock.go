package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"clouddragon/internal/client"
	"clouddragon/internal/job"
	"clouddragon/internal/units"
)

// Exit codes of the commands that call a server.
const (
	exitUnavailable = job.ExitUnavailable // no answer, or not from Cloud Dragon
	exitDenied      = job.ExitDenied      // the token is refused
)

const lockUsage = `usage: clouddragon lock [flags] NAME COMMAND [ARGUMENT...]

Runs the command while this process holds the lock NAME. It renews the lock while
the command runs, and unlocks when the command has ended.

flags:
  -server ADDRESS    http://HOST:PORT, https://HOST:PORT or unix:/PATH
  -token-file FILE   holds the token
  -account ACCOUNT   of the lock (default "default")
  -dur 60s           the lock expires after that time if it is not renewed
  -wait 0            how long to wait for the lock
  -least 0           keep the lock at least that long, even if the command ends earlier
  -limit 1           how many callers may hold the lock at the same time
  -shared            share the lock with others that use -shared
  -id ID             the holder's id (default: one that no other run has); runs with the same
                     id do not exclude each other
  -kill-after 10s    time between TERM and KILL if the lock is lost; at most a third of -dur
  -help              print this and exit

environment:
  CLOUDDRAGON_SERVER  the server, without -server (default ` + client.DefaultServer + `)
  CLOUDDRAGON_TOKEN   the token, without -token-file

The command finds the lock's name in CLOUDDRAGON_LOCK and its fencing token in
CLOUDDRAGON_LOCK_TOKEN.

exit codes: the command's own, 128+n if signal n ended it, or
  64   a bad flag, or something that the server refuses as malformed
  69   no answer from the server
  75   another caller holds the lock, or it was granted too late or lost while the command ran
  77   the token is refused
  126  the command cannot be run
  127  the command is not found
`

// connection has the flags of the commands that call a server.
type connection struct {
	server, tokenFile string
}

func (c *connection) register(flags *flag.FlagSet) {
	flags.StringVar(&c.server, "server", "", "")
	flags.StringVar(&c.tokenFile, "token-file", "", "")
}

// find returns the address and the token, from the flags or the environment.
func (c *connection) find() (server, token string, err error) {
	server, token = c.server, os.Getenv("CLOUDDRAGON_TOKEN")
	if server == "" {
		server = os.Getenv("CLOUDDRAGON_SERVER")
	}
	if server == "" {
		server = client.DefaultServer
	}
	if c.tokenFile != "" {
		b, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return "", "", fmt.Errorf("-token-file: %w", err)
		}
		token = strings.TrimSpace(string(b))
		if token == "" {
			return "", "", fmt.Errorf("-token-file: %s is empty", c.tokenFile)
		}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", errors.New("the token has a control character in it, such as a line break")
	}
	_, err = client.New(server, token)
	return server, token, err
}

// durationFlag parses a flag that is a duration in the syntax of the API.
func durationFlag(flags *flag.FlagSet, d *time.Duration, name string, zero bool) {
	flags.Func(name, "", func(s string) error {
		v, ok := units.ParseDuration(s)
		if !ok || v == 0 && !zero {
			return errors.New("want a duration such as 0.5, 500ms, 30s, 15m or 24h")
		}
		*d = v
		return nil
	})
}

// lock runs a command under a lock and returns the exit code.
func lock(args []string, stdout, stderr io.Writer) int {
	if spec, code := lockSpec(args, stdout, stderr); spec == nil {
		return code
	}
	return job.Run(args, stderr)
}

// lockSpec returns what the arguments of lock ask for, or an exit code.
func lockSpec(args []string, stdout, stderr io.Writer) (*job.Spec, int) {
	flags := newFlags("clouddragon lock")
	var to connection
	to.register(flags)
	l := &client.Lock{Account: "default", Dur: time.Minute}
	killAfter := 10 * time.Second
	flags.StringVar(&l.Account, "account", l.Account, "")
	durationFlag(flags, &l.Dur, "dur", false)
	durationFlag(flags, &l.Wait, "wait", true)
	durationFlag(flags, &l.Least, "least", true)
	durationFlag(flags, &killAfter, "kill-after", true)
	flags.Func("limit", "", func(s string) (err error) {
		l.Limit, err = strconv.Atoi(s)
		if err == nil && l.Limit < 1 {
			return errors.New("want a number from 1")
		}
		return err
	})
	flags.BoolVar(&l.Shared, "shared", false, "")
	flags.StringVar(&l.ID, "id", "", "")
	if code, done := parse(flags, args, lockUsage, stdout, stderr); done {
		return nil, code
	}
	if flags.NArg() < 2 {
		return nil, lockMisused(stderr, errors.New("want a NAME and a COMMAND"))
	}
	if flags.Arg(0) == "" || l.Account == "" {
		return nil, lockMisused(stderr, errors.New("NAME and -account must not be empty"))
	}
	if l.Limit > 0 && l.Shared {
		return nil, lockMisused(stderr, errors.New("-limit and -shared exclude each other"))
	}
	server, token, err := to.find()
	if err == nil {
		l.Server, err = client.New(server, token)
	}
	if err != nil {
		return nil, lockMisused(stderr, err)
	}
	l.Name = flags.Arg(0)
	if l.ID == "" {
		l.ID, l.Unique = client.NewID(), true
	}
	return &job.Spec{Lock: lockOf{l}, Name: l.Name, Dur: l.Dur, KillAfter: killAfter, Command: flags.Args()[1:]}, 0
}

// lockOf is a lock as package job wants it.
type lockOf struct{ *client.Lock }

func (l lockOf) Take(ctx context.Context) (token int64, end time.Duration, err error) {
	g, err := l.Lock.Take(ctx)
	return g.Token, g.End, err
}

func (l lockOf) GiveBack(token int64) error {
	return l.Lock.GiveBack(context.Background(), token)
}

func (lockOf) Code(err error) int { return exitCode(err) }

// exitCode returns the exit code for an error of a call to a server.
func exitCode(err error) int {
	switch {
	case errors.Is(err, client.ErrLate), client.Failed(err, client.Conflict):
		return job.ExitHeld
	case client.Failed(err, client.BadRequest):
		return exitUsage
	case client.Failed(err, client.Denied):
		return exitDenied
	}
	return exitUnavailable
}

func lockMisused(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "clouddragon lock: %v\n", err)
	return exitUsage
}

// keepLock is the second process of lock.
func keepLock(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if fd, err := strconv.Atoi(args[0]); err == nil && fd > 2 {
			return job.Keep(fd, func() (*job.Spec, int) { return lockSpec(args[1:], stdout, stderr) }, stderr)
		}
	}
	return lockMisused(stderr, fmt.Errorf("only `clouddragon lock` starts %s", job.KeeperCommand))
}
