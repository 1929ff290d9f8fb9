package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The process's file descriptors are divided: a quarter, at least leastFiles, for files,
// and the rest for connections. Of the files, log segments that are open for reading get
// all but ownFiles, at most mostSegments.
const (
	leastFiles = 40
	// ownFiles covers the lock file, CHECKPOINT, the tables, the segments being written, the
	// listener, stdin to stderr, the two pollers, and files that are open briefly: a
	// directory being synced, a file being made, /proc for a scrape.
	ownFiles     = 29
	mostSegments = 512
	// leastDescriptors is the least limit with which the server starts.
	leastDescriptors = 64
)

// descriptors are the shares of the process's descriptors.
type descriptors struct {
	connections int // how many may be open at a time
	segments    int // how many log segments may be open for reading
}

// shareDescriptors reads the process's limit and divides it. The error says what to set.
func shareDescriptors() (descriptors, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return descriptors{}, err
	}
	return share(r.Cur)
}

func share(limit uint64) (descriptors, error) {
	if limit < leastDescriptors {
		return descriptors{}, fmt.Errorf("the limit on open files is %d: set it to %d or more, with `ulimit -n` or LimitNOFILE= of the systemd unit", limit, leastDescriptors)
	}
	n := int(min(limit, 1<<30))
	files := max(leastFiles, n/4)
	return descriptors{connections: n - files, segments: min(files-ownFiles, mostSegments)}, nil
}
