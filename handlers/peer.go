package handlers

import (
	"context"
	"sync"

	"clouddragon/internal/front"
)

// peer is the context of a call that may wait, with its client. It is cancelled when
// the client hangs up, even if net/http does not notice.
type peer struct {
	context.Context
	conn   *front.Conn
	cancel context.CancelFunc
	once   sync.Once
	stop   func() // ends the watch; nil: there is none
}

// peer returns the context of a call, which is a db.Peer where the connection is
// known. It ends with the call.
func (c *call) peer() context.Context {
	if c.conn == nil {
		return c.r.Context()
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	c.waiting = &peer{Context: ctx, conn: c.conn, cancel: cancel}
	return c.waiting
}

// Done is called when a wait begins. Only from then on the client is watched.
func (p *peer) Done() <-chan struct{} {
	p.once.Do(func() {
		// If it cannot be watched, net/http still notices most hang-ups, and Gone is
		// asked before a grant.
		p.stop, _ = p.conn.Watch(p.cancel)
	})
	return p.Context.Done()
}

// Gone asks the socket.
func (p *peer) Gone() bool { return p.conn.Gone() }

// end releases what the context holds.
func (p *peer) end() {
	p.once.Do(func() {}) // no watch begins any more
	if p.stop != nil {
		p.stop()
	}
	p.cancel()
}
