package front

import (
	"errors"
	"io"
	"os"
	"time"
)

// Limits on reading what a client still sends after it was refused: bytes, time, and
// connections at a time.
const (
	lingerBytes = 64 << 20
	LingerTime  = 5 * time.Second
	lingerMost  = 256
)

// lingering has a token for each connection that lingers.
var lingering = make(chan struct{}, lingerMost)

// Linger ends a connection whose client may still be sending. It closes the server's side
// and reads on for a while. Closing a connection with unread input resets it, and then the
// client or a proxy may lose the answer. Call it after the last answer, and not while
// another goroutine reads.
func (c *Conn) Linger() {
	// An error says that the client is gone already.
	if err := c.CloseWrite(); err != nil {
		return
	}
	select {
	case lingering <- struct{}{}:
	default:
		// Too many connections linger: reset this one.
		_ = c.SetReadDeadline(time.Now()) // it fails only if the connection is closed already
		return
	}
	defer func() { <-lingering }()
	if err := c.SetReadDeadline(time.Now().Add(LingerTime)); err != nil {
		return
	}
	_, err := io.CopyN(io.Discard, onlyReader{c}, lingerBytes)
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.log.Debug("a refused client went away", "err", err)
	}
}

// onlyReader hides all methods but Read.
type onlyReader struct{ io.Reader }
