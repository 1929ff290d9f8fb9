// Package front is what stands between the sockets and net/http: it limits the
// number of connections, saves net/http system calls, notices clients that hang
// up, and writes the answers to what is not even a request.
//
// What it assumes of net/http, which test holds it, and what happens if a later
// net/http is different:
//
//   - It sets deadlines for each request that no read has to wait for.
//     TestSocketIsToldOnlyDeadlinesThatMatter. Otherwise: nothing.
//   - It watches for a hang-up with a read of one byte, and takes 0 bytes without
//     an error for the end of that watch. TestOnlyCallsThatMayWaitAreWatched, of
//     package handlers. Otherwise: brief calls are watched, which costs time.
//   - It sets a read deadline before each such watch.
//     TestSkippedReadIsForgottenWithTheRequest. Otherwise: a client that hangs up
//     while it waits is noticed by Conn.Watch alone.
//   - It answers a request that it cannot read in one Write, while no request is
//     with the handler, and reports http.StateIdle after each other answer.
//     TestWhatHTTPRefusesIsOneLine. Otherwise: its own answer is sent.
//   - It reads up to 4096 bytes more than MaxHeaderBytes. TestLargestHeader.
//     Otherwise: the limit on headers is another.
//
// With StartLoops, event loops accept the connections and answer plain requests by
// themselves: see loop. Everything else goes on to net/http through Accept, with what was read.
//
// Options.Plain turns off what saves system calls: net/http then has each
// deadline and each watch that it asks for.
package front

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// MaxHeader is how many bytes a request line and its headers may have. A server
// has to be set to MaxHeaderBytes, since net/http adds something to that.
const (
	MaxHeader      = 64 << 10
	MaxHeaderBytes = MaxHeader - 4096
)

// Options say how connections are accepted.
type Options struct {
	Max   int          // how many may be open at a time
	TLS   *tls.Config  // nil: no TLS
	Plain bool         // leave net/http its deadlines and its watch
	Log   *slog.Logger // of handshakes that fail; nil: none
}

// Listener is a listener with at most so many connections open. The next one
// waits in the kernel's queue until one is closed.
type Listener struct {
	net.Listener
	o        Options
	open     chan struct{} // has a token for each connection, and room for as many as may be
	loop     LoopOptions
	loops    []*loop // none: net/http serves every connection
	handed   *handed // from the loops to Accept
	once     sync.Once
	closed   chan struct{}
	closeErr error // of the first Close
}

// NewListener returns l with connections of this package. Its server needs
// ConnContext and ConnState, and its handler has to call Begin.
func NewListener(l net.Listener, o Options) *Listener {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.NextProtos = []string{"http/1.1"}
	}
	return &Listener{Listener: l, o: o, open: make(chan struct{}, o.Max), closed: make(chan struct{})}
}

// Accept waits for a connection, and first until there may be one more. With loops it
// waits for one that they hand over.
func (l *Listener) Accept() (net.Conn, error) {
	if l.loops != nil {
		return l.handed.take()
	}
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	inner, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	c := &Conn{Conn: inner, release: l.release, plain: l.o.Plain, log: l.o.Log}
	c.socket, _ = inner.(syscall.Conn)
	if l.o.TLS != nil {
		c.Conn = tls.Server(inner, l.o.TLS)
	}
	return c, nil
}

// Close ends the listening; a second one changes nothing. Connections that are open
// go on: EndLoops ends those of the loops.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		for _, p := range l.loops {
			p.tell(func() { p.closing = true })
		}
		for _, p := range l.loops {
			<-p.deaf // each has a descriptor of the same socket
		}
		l.closeErr = l.Listener.Close()
	})
	return l.closeErr
}

// Wait returns once no connection is open, but not later than after limit. The
// listener is closed before.
func (l *Listener) Wait(limit time.Duration) {
	for end := time.Now().Add(limit); len(l.open) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// connKey is where ConnContext keeps the connection.
type connKey struct{}

// ConnContext is for http.Server.ConnContext, with connections from a Listener.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// ConnState is for http.Server.ConnState.
func ConnState(c net.Conn, state http.ConnState) {
	if c, ok := c.(*Conn); ok && state == http.StateIdle {
		c.end()
	}
}

// Begin notes that a request is with its handler, and returns its connection; nil
// if it is none of this package.
func Begin(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	if c != nil {
		c.begin()
	}
	return c
}
