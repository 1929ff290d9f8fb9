package main

import (
	"fmt"
	"io"
	"os"

	"clouddragon/db"
	"clouddragon/internal/disk"
)

const verifyUsage = `usage: clouddragon verify DIR

Checks every file of a data directory that no server uses, and prints all damage
and where it is. It changes nothing.

flags:
  -data DIR  the same as DIR
  -help      print this and exit

environment:
  none

exit codes:
  0   no damage
  1   damage, or the directory cannot be read or is in use
  64  a bad flag
`

// verify checks a data directory that no server uses, prints each damage on a
// line, then a summary, and returns the exit code.
func verify(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon verify")
	dir := flags.String("data", "", "")
	if code, done := parse(flags, args, verifyUsage, stdout, stderr); done {
		return code
	}
	dirs := flags.Args()
	if *dir != "" {
		dirs = append(dirs, *dir)
	}
	if len(dirs) != 1 {
		fmt.Fprintf(stderr, "clouddragon verify: want one data directory, got %d\n%s", len(dirs), verifyUsage)
		return exitUsage
	}
	*dir = dirs[0]
	if info, err := os.Stat(*dir); err != nil {
		fmt.Fprintf(stderr, "clouddragon verify: no data directory: %v\n", err)
		return exitFailed
	} else if !info.IsDir() {
		fmt.Fprintf(stderr, "clouddragon verify: %s is a file: want a data directory\n", *dir)
		return exitFailed
	}
	damaged := 0
	p := newProgress(stderr)
	r, err := db.Verify(disk.OS{ReadOnly: true}, *dir, func(d *disk.Damage) {
		damaged++
		p.clear()
		fmt.Fprintln(stdout, d)
	}, p.report)
	p.clear()
	if err != nil {
		fmt.Fprintf(stderr, "clouddragon verify: %v\n", err)
		return exitFailed
	}
	if r.Copy != nil {
		fmt.Fprintf(stdout, "%s: one of the two copies in CHECKPOINT is damaged (%v): the other one is good, and the next start writes both\n", *dir, r.Copy)
	}
	if damaged > 0 {
		fmt.Fprintf(stdout, "%s: damaged in %s\n", *dir, plural(uint64(damaged), "place"))
		return exitFailed
	}
	if r.Torn != "" {
		fmt.Fprintf(stdout, "%s: the log ends with a write that was never answered (%s): the next start cuts it off\n", *dir, r.Torn)
	}
	names := ", the index of names is good"
	switch {
	case r.Names == nil:
		names = "; there is no index of names, so the next start makes one"
	case r.Stale != nil:
		names = fmt.Sprintf("; the index of names is stale (%v), so the next start rebuilds it", r.Stale)
	}
	fmt.Fprintf(stdout, "%s: no damage: %s in use, %s%s\n", *dir, plural(r.Slots, "slot"), plural(uint64(r.Segments), "log segment"), names)
	return exitOK
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
