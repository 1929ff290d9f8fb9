package main

import (
	"errors"
	"net"
	"strings"
	"testing"
)

func TestNextConnectionWaitsUntilOneIsClosed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	defer l.Close()
	accepted, failed := make(chan net.Conn, 4), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			accepted <- c
		}
	}()
	for range 4 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 4 {
		c := <-accepted
		if n := len(l.open); n > 2 {
			t.Errorf("%d connections are open, want at most 2", n)
		}
		// Twice is once.
		if err := errors.Join(c.(*counted).CloseWrite(), c.Close()); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-accepted
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed listener: %v", err)
	}
}

func TestFullListenerCanBeClosed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 0)
	failed := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		failed <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// Whatever the limit, connections leave enough descriptors to files; one with
// which nothing would work is refused, with what to set.
func TestDescriptorsAreShared(t *testing.T) {
	for _, limit := range []uint64{64, 65, 100, 256, 1024, 1 << 20, 1<<64 - 1} {
		of, err := share(limit)
		if err != nil {
			t.Errorf("%d: %v", limit, err)
			continue
		}
		if of.connections < 1 || of.segments < 1 || of.segments > mostSegments || uint64(of.connections+of.segments+ownFiles) > limit {
			t.Errorf("%d descriptors are shared as %+v", limit, of)
		}
	}
	for _, limit := range []uint64{0, 16, 63} {
		if _, err := share(limit); err == nil || !strings.Contains(err.Error(), "set it to 64") {
			t.Errorf("%d: got %v, want what to set", limit, err)
		}
	}
}
