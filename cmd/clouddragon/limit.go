package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The process's file descriptors are shared: a quarter, and at least leastFiles,
// is for the files of the data directory and whatever else the process opens, and
// the rest for connections. Of the files, those of log segments that are open
// only to be read are as many as ownFiles leaves, and at most mostSegments.
const (
	leastFiles = 40
	// ownFiles is for the lock file, CHECKPOINT, the tables, the segments that are
	// written to, the listener, stdin to stderr, the poller, and what is open for a
	// moment: a directory that is synced, a file that is made, /proc for a scrape.
	ownFiles     = 28
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

// limited is a listener with at most so many connections open. The next one
// waits in the kernel's queue until one is closed.
type limited struct {
	net.Listener
	open   chan struct{} // has a token for each connection, and room for as many as may be
	once   sync.Once
	closed chan struct{}
	err    error // of the first Close
}

func limit(l net.Listener, connections int) *limited {
	return &limited{Listener: l, open: make(chan struct{}, connections), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &counted{Conn: c, open: l.open}, nil
}

// Close ends the listening; a second one changes nothing.
func (l *limited) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.err = l.Listener.Close()
	})
	return l.err
}

// wait returns once no connection is open, but not later than after limit. The
// listener is closed before.
func (l *limited) wait(limit time.Duration) {
	for end := time.Now().Add(limit); len(l.open) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// counted is a connection of a limited listener.
type counted struct {
	net.Conn
	once sync.Once
	open <-chan struct{}
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.open })
	return err
}

// SyscallConn lets the handlers ask the socket.
func (c *counted) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite lets net/http end an answer to a client that still sends, without a reset.
func (c *counted) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
