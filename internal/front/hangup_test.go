package front

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// hangUps are the ways in which a client goes away.
var hangUps = map[string]func(c *net.TCPConn) error{
	"close": (*net.TCPConn).Close,
	"half":  (*net.TCPConn).CloseWrite,
	"reset": func(c *net.TCPConn) error {
		if err := c.SetLinger(0); err != nil {
			return err
		}
		return c.Close()
	},
}

func TestWatchTellsOfAHangUp(t *testing.T) {
	for name, hangUp := range hangUps {
		server, client := pair(t)
		c := server.(*Conn)
		if _, err := io.WriteString(client, "the next request"); err != nil {
			t.Fatal(err)
		}
		ctx, gone := context.WithTimeout(t.Context(), 20*time.Second)
		stop, err := c.Watch(gone)
		if err != nil {
			t.Fatal(err)
		}
		if c.Gone() || ctx.Err() != nil {
			t.Errorf("%s: it is gone before", name)
		}
		if err := hangUp(client.(*net.TCPConn)); err != nil {
			t.Fatal(err)
		}
		if <-ctx.Done(); ctx.Err() != context.Canceled || !c.Gone() {
			t.Fatalf("%s: not noticed, %v", name, ctx.Err())
		}
		stop()
		// A client that has gone already is reported too.
		ctx, gone = context.WithTimeout(t.Context(), 20*time.Second)
		if stop, err = c.Watch(gone); err != nil {
			t.Fatal(err)
		}
		if <-ctx.Done(); ctx.Err() != context.Canceled {
			t.Fatalf("%s: not noticed afterwards, %v", name, ctx.Err())
		}
		stop()
	}
}

// Descriptors are reused: a stopped watch must not report the hang-up of another connection.
func TestStoppedWatchTellsNothing(t *testing.T) {
	for closeFirst := range 2 {
		server, client := pair(t)
		stop, err := server.(*Conn).Watch(func() { t.Error("told of a hang-up that nobody waits for") })
		if err != nil {
			t.Fatal(err)
		}
		if closeFirst == 1 {
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		// Any report would have come before this one.
		server, client = pair(t)
		told := make(chan struct{})
		if stop, err = server.(*Conn).Watch(func() { close(told) }); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		<-told
		stop()
	}
}
