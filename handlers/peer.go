package handlers

import (
	"context"
	"net"
	"net/http"
	"syscall"

	"golang.org/x/sys/unix"
)

// connKey is where ConnContext keeps the connection.
type connKey struct{}

// ConnContext is for http.Server.ConnContext. With it a lock is not granted from
// its queue to a client that has hung up, even if net/http has not noticed yet.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // of TLS
	}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return context.WithValue(ctx, connKey{}, raw)
		}
	}
	return ctx
}

// peer is the context of a request, and its client.
type peer struct {
	context.Context
	conn syscall.RawConn
}

// peerOf returns the context of a request, which is a db.Peer where the connection is known.
func peerOf(r *http.Request) context.Context {
	ctx := r.Context()
	if conn, ok := ctx.Value(connKey{}).(syscall.RawConn); ok {
		return peer{ctx, conn}
	}
	return ctx
}

// Gone looks at what the socket has received: the end, or an error.
func (p peer) Gone() bool {
	gone := false
	err := p.conn.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err == unix.ECONNRESET
	})
	return gone || err != nil
}
