package handlers

import (
	"context"

	"golang.org/x/sys/unix"
)

// peer is the context of a request, and its client. With it a lock is not granted
// from its queue to a client that has hung up, even if net/http has not noticed yet.
type peer struct {
	context.Context
	conn *conn
}

// peer returns the context of a request, which is a db.Peer where the connection is known.
func (c *call) peer() context.Context {
	if c.conn == nil {
		return c.r.Context()
	}
	return peer{c.r.Context(), c.conn}
}

// Gone looks at what the socket has received: the end, or an error.
func (p peer) Gone() bool {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err == unix.ECONNRESET
	})
	return gone || err != nil
}
