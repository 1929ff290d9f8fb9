package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"clouddragon/internal/client"
	"clouddragon/internal/disk"
	"clouddragon/internal/job"
	"clouddragon/internal/replica"
)

const promoteUsage = `usage: clouddragon promote [flags]

Makes a standby the primary, in place of the one that it follows. The old primary is
told if it can be reached, and answers nothing from then on. A primary that is promoted
continues without its standby.

A standby that may lack writes that were acknowledged refuses, unless -force is given.
Those writes are lost then. Where etcd decides which server is the primary, it refuses too.

flags:
  -data DIR          the data directory of the server, whether it runs or not
  -server ADDRESS    http://HOST:PORT, https://HOST:PORT or unix:/PATH, without -data
  -token-file FILE   holds the token
  -force             promote a standby that may lack writes
  -help              print this and exit

environment:
  CLOUDDRAGON_SERVER  the server, without -server and -data (default ` + client.DefaultServer + `)
  CLOUDDRAGON_TOKEN   the token, without -token-file

exit codes:
  0   the server is the primary; its epoch is printed
  1   the server cannot be promoted
  64  a bad flag, or something that the server refuses as malformed
  69  no answer from the server
  75  the server refuses: it may lack writes, or etcd decides
  77  the token is refused
`

// promoteLimit is how long a promotion may take.
const promoteLimit = 30 * time.Second

// promote makes a server the primary and returns the exit code.
func promote(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon promote")
	var to connection
	to.register(flags)
	dir := flags.String("data", "", "")
	force := flags.Bool("force", false, "")
	if code, done := parse(flags, args, promoteUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	switch {
	case flags.NArg() > 0:
		return fail(exitUsage, fmt.Errorf("unknown argument %q", flags.Arg(0)))
	case *dir != "" && to.server != "":
		return fail(exitUsage, errors.New("-data and -server: want one of them"))
	}
	if *dir != "" {
		epoch, address, err := promoteStopped(*dir, *force)
		if replica.IsRefused(err) {
			return fail(job.ExitHeld, err)
		}
		if err != nil {
			return fail(exitFailed, err)
		}
		if address == "" {
			fmt.Fprintf(stdout, "%d\n", epoch)
			return exitOK
		}
		to.server = address // the directory's server is running
	}
	address, token, err := to.find()
	if err != nil {
		return fail(exitUsage, err)
	}
	server, err := client.New(address, token)
	if err != nil {
		return fail(exitUsage, err)
	}
	query := url.Values{}
	if *force {
		query.Set("force", "1")
	}
	ctx, cancel := context.WithTimeout(context.Background(), promoteLimit)
	defer cancel()
	answer, err := server.Call(ctx, "POST", "/replica/promote", query, "")
	if err != nil {
		return fail(exitCode(err), err)
	}
	var done struct{ Epoch uint64 }
	if err := json.Unmarshal(answer.Body, &done); err != nil {
		return fail(exitUnavailable, fmt.Errorf("%s does not answer like a Cloud Dragon server: %w", server, err))
	}
	fmt.Fprintf(stdout, "%d\n", done.Epoch)
	return exitOK
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// promoteStopped promotes the server of a data directory if it does not run. If it does,
// it returns its address.
func promoteStopped(dir string, force bool) (epoch uint64, address string, err error) {
	// Locking would create the lock files in any directory.
	if !exists(filepath.Join(dir, standbyLock)) && !exists(filepath.Join(dir, "CHECKPOINT")) {
		return 0, "", fmt.Errorf("%s is not the data directory of a server: it has no CHECKPOINT", dir)
	}
	for _, lock := range []string{standbyLock, "LOCK"} {
		l, err := disk.OS{}.Lock(filepath.Join(dir, lock), "clouddragon promote")
		if by := (*disk.LockedError)(nil); errors.As(err, &by) {
			_, address, ok := strings.Cut(by.By, "listen ")
			if !ok || strings.HasSuffix(address, ":0") {
				return 0, "", fmt.Errorf("%w: name the server with -server", err)
			}
			return 0, address, nil
		}
		if err != nil {
			return 0, "", err
		}
		defer l.Close() // it was only held
	}
	epoch, err = replica.PromoteStopped(disk.OS{}, dir, force)
	return epoch, "", err
}
