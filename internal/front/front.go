// Package front stands between the sockets and net/http. It limits the number of
// connections, saves net/http system calls, notices clients that hang up, and answers
// input that is not a valid request.
//
// It relies on these details of net/http. Each line names the test that checks the
// detail, and what happens if a later net/http is different:
//
//   - It sets deadlines for each request that no read has to wait for.
//     TestSocketIsToldOnlyDeadlinesThatMatter. Otherwise: nothing.
//   - It watches for a hang-up with a read of one byte, and takes 0 bytes without
//     an error for the end of that watch. TestOnlyCallsThatMayWaitAreWatched, of
//     package handlers. Otherwise: brief calls are watched, which costs time.
//   - It sets a read deadline before each such watch.
//     TestSkippedReadIsForgottenWithTheRequest. Otherwise: a client that hangs up
//     while it waits is noticed by Conn.Watch alone.
//   - It answers a request that it cannot read in one Write, while no handler has a
//     request, and reports http.StateIdle after every other answer.
//     TestWhatHTTPRefusesIsOneLine. Otherwise: net/http's own answer is sent.
//   - It reads up to 4096 bytes more than MaxHeaderBytes. TestLargestHeader.
//     Otherwise: the limit on headers changes.
//
// With StartLoops, event loops accept the connections and answer plain requests
// themselves: see loop. All other connections go to net/http through Accept, with the
// bytes that the loop has read.
//
// Options.Plain turns the savings off: net/http then gets every deadline and every watch
// that it asks for.
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

// MaxHeader is the largest size of a request line with its headers, in bytes. Set the
// http.Server to MaxHeaderBytes, because net/http adds 4096.
const (
	MaxHeader      = 64 << 10
	MaxHeaderBytes = MaxHeader - 4096
)

// Options say how connections are accepted.
type Options struct {
	Max   int          // how many may be open at a time
	TLS   *tls.Config  // nil: no TLS
	Plain bool         // pass net/http's deadlines and watches on to the socket
	Log   *slog.Logger // nil: nothing is logged
}

// Listener is a listener with a limit on open connections. Above it, new connections
// wait in the kernel's queue until one is closed.
type Listener struct {
	net.Listener
	o        Options
	open     chan struct{} // holds a token for each open connection; its capacity is the limit
	loop     LoopOptions
	loops    []*loop // none: net/http serves every connection
	handed   *handed // connections that the loops hand to Accept
	once     sync.Once
	closed   chan struct{}
	closeErr error // of the first Close
}

// NewListener wraps l. Its http.Server needs ConnContext and ConnState, and its handler
// has to call Begin.
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

// Accept waits until the limit allows one more connection, and then for the connection.
// With loops it waits for a connection that a loop hands over.
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

// Close stops listening. A second call changes nothing. Open connections stay open:
// EndLoops closes those of the loops.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		for _, p := range l.loops {
			p.tell(func() { p.closing = true })
		}
		for _, p := range l.loops {
			<-p.deaf // each loop has a descriptor of the same socket
		}
		l.closeErr = l.Listener.Close()
	})
	return l.closeErr
}

// Wait waits until no connection is open, but at most for limit. Close the listener
// before.
func (l *Listener) Wait(limit time.Duration) {
	for end := time.Now().Add(limit); len(l.open) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// connKey is the context key of the connection.
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

// Begin notes that a handler has the request, and returns its connection. It is nil
// for a connection that is not from a Listener.
func Begin(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	if c != nil {
		c.begin()
	}
	return c
}
