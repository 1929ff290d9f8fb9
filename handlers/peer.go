package handlers

import (
	"context"
	"sync"

	"clouddragon/internal/front"
)

// peer is the context of a call that may wait. It is cancelled when the client hangs up,
// even if net/http does not notice.
type peer struct {
	context.Context
	conn   *front.Conn
	cancel context.CancelFunc
	once   sync.Once
	stop   func() // ends the watch; nil: there is none
}

// peer returns the context of a call. It is a db.Peer if the connection is known. It ends
// with the call.
func (c *call) peer() context.Context {
	if c.conn == nil {
		return c.r.Context()
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	c.waiting = &peer{Context: ctx, conn: c.conn, cancel: cancel}
	return c.waiting
}

// Done is called when a wait begins. The client is watched from then on.
func (p *peer) Done() <-chan struct{} {
	p.once.Do(func() {
		// If the watch fails, net/http still notices most hang-ups, and Gone is called
		// before a grant.
		p.stop, _ = p.conn.Watch(p.cancel)
	})
	return p.Context.Done()
}

// Gone asks the socket whether the client has hung up.
func (p *peer) Gone() bool { return p.conn.Gone() }

// end ends the watch and releases the context.
func (p *peer) end() {
	p.once.Do(func() {}) // from now on no watch begins
	if p.stop != nil {
		p.stop()
	}
	p.cancel()
}
