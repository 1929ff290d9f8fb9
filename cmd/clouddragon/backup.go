package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clouddragon/internal/archive"
	"clouddragon/internal/client"
)

const backupUsage = `usage: clouddragon backup [flags] -o FILE

Stores a copy of everything that a running server holds, as of one moment.
The file gets its name once it is complete, checked and on disk.

flags:
  -o FILE           the file, replaced if it exists; "-" for stdout
  -keep N           delete all but the newest N backups whose names differ from
                    FILE only in digits, such as a date (default: delete none)
  -server ADDRESS   http://HOST:PORT, https://HOST:PORT or unix:/PATH
  -token-file FILE  holds the token, which needs full access
  -help             print this and exit

environment:
  CLOUDDRAGON_SERVER  the server, without -server (default ` + client.DefaultServer + `)
  CLOUDDRAGON_TOKEN   the token, without -token-file

exit codes:
  0   the backup is complete
  1   it was damaged on the way or interrupted, or the file could not be written
  64  a bad flag
  69  no answer from the server, or only a part of one
  77  the token is refused
`

// backupIdle is how long the server may pause while it sends.
const backupIdle = time.Minute

// backup stores a copy of a running server and returns the exit code.
func backup(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon backup")
	var to connection
	to.register(flags)
	file := flags.String("o", "", "")
	keep := flags.Int("keep", 0, "")
	if code, done := parse(flags, args, backupUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	switch {
	case flags.NArg() > 0:
		return fail(exitUsage, fmt.Errorf("unknown argument %q", flags.Arg(0)))
	case *file == "":
		return fail(exitUsage, errors.New("-o FILE is missing"))
	case *keep < 0:
		return fail(exitUsage, errors.New("-keep: want a number from 1"))
	case *keep > 0 && *file == "-":
		return fail(exitUsage, errors.New("-keep needs a file"))
	}
	address, token, err := to.find()
	if err != nil {
		return fail(exitUsage, err)
	}
	server, err := client.New(address, token)
	if err != nil {
		return fail(exitUsage, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	b := fetch{ctx: ctx, server: server, progress: newProgress(stderr)}
	var m *archive.Manifest
	if *file == "-" {
		m, err = b.to(stdout)
	} else {
		m, err = b.toFile(*file)
	}
	b.progress.clear()
	var refused *client.Error
	switch {
	case err != nil && ctx.Err() != nil:
		return fail(exitFailed, context.Cause(ctx))
	case errors.As(err, &refused) && refused.Reason == client.Denied:
		return fail(exitDenied, err)
	case errors.As(err, &refused) && refused.Reason == client.BadRequest:
		return fail(exitUsage, err)
	case errors.As(err, &refused):
		return fail(exitUnavailable, err)
	case err != nil:
		return fail(exitFailed, err)
	}
	if *file == "-" {
		return exitOK
	}
	fmt.Fprintf(stdout, "%s: everything as it was at %s, %s\n", *file, m.Time.Format(time.RFC3339Nano), inMiB(b.n))
	if *keep > 0 {
		removed, err := removeOld(*file, *keep)
		for _, name := range removed {
			fmt.Fprintf(stdout, "%s: removed\n", name)
		}
		if err != nil {
			return fail(exitFailed, err)
		}
	}
	return exitOK
}

// fetch is a backup that is being received.
type fetch struct {
	ctx      context.Context
	server   *client.Server
	progress *progress

	n, size int64 // bytes received, and an estimate of the total
}

// to writes the backup to w and checks it on the way.
func (b *fetch) to(w io.Writer) (*archive.Manifest, error) {
	header, body, err := b.server.Stream(b.ctx, "/backup", "application/x-tar", backupIdle)
	if err != nil {
		return nil, err
	}
	// Without the header the size is not known.
	b.size, _ = strconv.ParseInt(header.Get("Backup-Size"), 10, 63)
	m, err := archive.Read(io.TeeReader(body, io.MultiWriter(w, b)), nil)
	return m, errors.Join(err, body.Close())
}

// Write counts the bytes.
func (b *fetch) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	b.progress.report(b.n, b.size)
	return len(p), nil
}

// toFile writes the backup to a temporary file, which gets its name when it is on disk. It
// replaces a regular file only: a rename over /dev/null would remove the device.
func (b *fetch) toFile(name string) (_ *archive.Manifest, err error) {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: name a file, or - for stdout", name)
	}
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	if err := removeParts(dir, base); err != nil {
		return nil, err
	}
	f, err := createPart(dir, base)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	m, err := b.to(f)
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return nil, err
	}
	// The file has its final name, so it stays even after a later error.
	return m, errors.Join(f.Close(), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
