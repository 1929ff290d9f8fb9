package main

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// leastFiles is how many descriptors connections leave to files at least.
const leastFiles = 32

// maxConnections is how many connections may be open at a time: a quarter of the
// process's descriptors is left to the files of the data directory. To find none
// for the next segment would stop writes as a failed disk does.
func maxConnections() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	n := int(min(r.Cur, 1<<30))
	return max(1, n-max(leastFiles, n/4)), nil
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
