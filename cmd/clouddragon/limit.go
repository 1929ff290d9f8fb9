package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The process's file descriptors are shared: a quarter, and at least leastFiles,
// is for the files of the data directory and whatever else the process opens, and
// the rest for connections. Of the files, those of log segments that are open
// only to be read are as many as ownFiles leaves, and at most mostSegments.
const (
	leastFiles = 40
	// ownFiles is for the lock file, CHECKPOINT, the tables, the segments that are
	// written to, the listener, stdin to stderr, the two pollers, and what is open for a
	// moment: a directory that is synced, a file that is made, /proc for a scrape.
	ownFiles     = 29
	mostSegments = 512
	// leastDescriptors is how many there must be to start.
	leastDescriptors = 64
)

// descriptors are the shares of the process's descriptors.
type descriptors struct {
	connections int // that may be open at a time
	segments    int // files of log segments that may be open to be read
}

// shareDescriptors reads the limit of the process. The error says what to set.
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
