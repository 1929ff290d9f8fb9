package front

import (
	"errors"
	"io"
	"os"
	"time"
)

// How much is read of what a client still sends after it was refused, for how
// long, and on how many connections at a time.
const (
	lingerBytes = 64 << 20
	LingerTime  = 5 * time.Second
	lingerMost  = 256
)

// lingering has a token for each connection that lingers.
var lingering = make(chan struct{}, lingerMost)

// Linger is called after the last answer on a connection whose client may still
// be sending. It ends the server's side and reads on for a while: closed with
// something unread, a connection is reset, and the client, or a proxy, loses the
// answer. It must not be called while another reads.
func (c *Conn) Linger() {
	// A client that cannot be told any more is gone, which is no fault.
	if err := c.CloseWrite(); err != nil {
		return
	}
	select {
	case lingering <- struct{}{}:
	default:
		// A flood of them: better a reset than one more that is read from.
		_ = c.SetReadDeadline(time.Now()) // an error says that it is closed already
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

// onlyReader hides all but Read.
type onlyReader struct{ io.Reader }
