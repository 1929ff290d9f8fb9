package main

import (
	"fmt"
	"syscall"
)

// filesNeeded is more than the files that one program has open: the connections of
// letIn, at the client's or the server's end.
const filesNeeded = 16_384

// raiseFiles lets us, and what we start, open enough files. Setting it also keeps
// the os package from giving our children the lower limit that we began with.
func raiseFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	l.Cur = max(l.Cur, filesNeeded)
	l.Max = max(l.Max, l.Cur)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("%d open files: %w: run it as root, or raise the limit (ulimit -Hn)", l.Cur, err)
	}
	return nil
}
