package front

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// socket is a connection whose reads return what the test has set. It records the calls on it.
type socket struct {
	net.Conn
	reads     []error     // of the reads to come; nil reads a byte
	deadlines []time.Time // of reads, as set
	writes    []time.Time // deadlines of writes, as set
}

func (s *socket) Read(p []byte) (int, error) {
	err := s.reads[0]
	s.reads = s.reads[1:]
	if err != nil {
		return 0, err
	}
	return 1, nil
}

func (s *socket) Write(p []byte) (int, error) { return len(p), nil }

func (s *socket) SetReadDeadline(t time.Time) error {
	s.deadlines = append(s.deadlines, t)
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writes = append(s.writes, t)
	return nil
}

func TestSocketIsToldOnlyDeadlinesThatMatter(t *testing.T) {
	late := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	now := time.Now()
	never, past, soon, later := time.Time{}, now.Add(-time.Minute), now.Add(time.Hour), now.Add(2*time.Hour)
	for _, c := range []struct {
		name string
		set  []time.Time // each before a read
		got  []error     // what each read of the socket gives
		told []time.Time
		want []error // of the reads
	}{
		{"none", []time.Time{never, never}, []error{nil, nil}, nil, []error{nil, nil}},
		{"once", []time.Time{soon, soon}, []error{nil, nil}, []time.Time{soon}, []error{nil, nil}},
		{"a later one waits", []time.Time{soon, later, never}, []error{nil, nil, nil}, []time.Time{soon}, []error{nil, nil, nil}},
		{"an earlier one does not", []time.Time{later, soon}, []error{nil, nil}, []time.Time{later, soon}, []error{nil, nil}},
		{"over before the read", []time.Time{past, never}, []error{nil}, nil, []error{os.ErrDeadlineExceeded, nil}},
		{"met too early, then a later one", []time.Time{soon, later}, []error{nil, late, nil}, []time.Time{soon, later}, []error{nil, nil}},
		{"met too early, then none", []time.Time{soon, never}, []error{nil, late, nil}, []time.Time{soon, never}, []error{nil, nil}},
		{"another error", []time.Time{soon}, []error{io.EOF}, []time.Time{soon}, []error{io.EOF}},
	} {
		s := &socket{reads: c.got}
		conn := &Conn{Conn: s, busy: true}
		var got []error
		for _, at := range c.set {
			if err := conn.SetReadDeadline(at); err != nil {
				t.Fatal(err)
			}
			_, err := conn.Read(make([]byte, 2))
			got = append(got, err)
		}
		if !slices.EqualFunc(got, c.want, errors.Is) || !slices.EqualFunc(s.deadlines, c.told, time.Time.Equal) || len(s.reads) > 0 {
			t.Errorf("%s: read %v, want %v; told %v, want %v; %d reads left", c.name, got, c.want, s.deadlines, c.told, len(s.reads))
		}
	}
}

// A write to a client that does not read has a deadline.
func TestWriteHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &socket{}
		conn := &Conn{Conn: s, busy: true}
		began := time.Now()
		var want []time.Time
		write := func(told ...time.Duration) {
			t.Helper()
			if n, err := conn.Write([]byte("a")); n != 1 || err != nil {
				t.Fatalf("wrote %d bytes, %v", n, err)
			}
			for _, d := range told {
				want = append(want, began.Add(d))
			}
			if !slices.EqualFunc(s.writes, want, time.Time.Equal) {
				t.Fatalf("after %v: told %v, want %v", time.Since(began), s.writes, want)
			}
		}
		set := func(at time.Time) {
			t.Helper()
			if err := conn.SetWriteDeadline(at); err != nil {
				t.Fatal(err)
			}
		}
		pass := func(d time.Duration) { <-time.After(d) } // by the bubble's clock: nobody waits for it
		write(writeTime)
		set(time.Time{}) // as net/http does after each answer
		write()
		pass(writeTime / 2)
		write(writeTime * 3 / 2)
		pass(writeTime * 2) // the deadline passes while nobody writes
		write(writeTime * 7 / 2)
		set(began.Add(writeTime * 20)) // a handler sets its own deadline
		want = append(want, began.Add(writeTime*20))
		pass(writeTime)
		write()
		set(time.Time{})
		write(writeTime * 9 / 2)
	})
}

func TestSocketIsToldDeadlinesOfWrites(t *testing.T) {
	s := &socket{}
	conn := &Conn{Conn: s, busy: true}
	at := time.Now()
	for _, d := range []time.Time{{}, at, {}, {}} {
		if err := conn.SetWriteDeadline(d); err != nil {
			t.Fatal(err)
		}
	}
	if want := []time.Time{at}; !slices.Equal(s.writes, want) {
		t.Errorf("told %v, want %v", s.writes, want)
	}
	if err := conn.SetDeadline(at); err != nil || !conn.deadline.Equal(at) || !s.writes[1].Equal(at) {
		t.Errorf("SetDeadline: %v, reads %v, writes %v", err, conn.deadline, s.writes)
	}
}

// pair returns the two ends of a connection through Listener.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = NewListener(l, Options{Max: 1}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

func TestReadThatWaitsEndsAtItsDeadline(t *testing.T) {
	c, _ := pair(t)
	for _, first := range []time.Time{{}, time.Now().Add(time.Hour)} {
		if err := c.SetReadDeadline(first); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			done <- err
		}()
		// The deadline is set before the read or while it waits. The read ends in both cases.
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after a deadline of %v: %v", first, err)
		}
	}
}

// An earlier deadline that the socket still has does not end a read that may last longer.
func TestReadOutlivesADeadlineTakenBack(t *testing.T) {
	c, client := pair(t)
	soon := time.Now().Add(2 * time.Second) // the first read has to come before
	if err := c.SetReadDeadline(soon); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Until(soon)+20*time.Millisecond, func() {
		if _, err := client.Write([]byte("cd")); err != nil {
			t.Error(err)
		}
	})
	defer timer.Stop()
	if n, err := c.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Errorf("read %d bytes, %v; want 2", n, err)
	}
}

func TestSkippedReadIsEmptyOnce(t *testing.T) {
	s := &socket{reads: []error{nil, nil}}
	conn := &Conn{Conn: s, busy: true}
	conn.SkipWatch()
	var got []int
	for _, size := range []int{2, 1, 1} {
		n, err := conn.Read(make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if want := []int{1, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("reads of 2, 1 and 1 bytes gave %v, want %v", got, want)
	}
}

// The skipped watch may have ended already, and the next read of one byte belongs to another
// request.
func TestSkippedReadIsForgottenWithTheRequest(t *testing.T) {
	conn := &Conn{Conn: &socket{reads: []error{nil}}}
	conn.SkipWatch()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v; want 1", n, err)
	}
}
