package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// With several loops, each connection belongs to one loop, and the other loops serve theirs
// while one commits.
func TestStallOfOneLoopLeavesTheOthers(t *testing.T) {
	h := newHold()
	release := make(chan struct{})
	f := &fakePlain{}
	f.submit = func(xs []*Exchange, lead bool) {
		h.submit(xs, lead)
		<-release
		for _, x := range xs {
			x.Done()
		}
	}
	r := newLoopsRig(t, f, 100, 3, nil)
	var conns []*net.TCPConn
	var in []*bufio.Reader
	for i := range 12 {
		c := r.dial()
		conns, in = append(conns, c), append(in, bufio.NewReader(c))
		r.send(c, ask("GET", fmt.Sprint("/", i)))
		r.want(in[i], fmt.Sprint("/", i))
	}
	const stuck = 6 // more than there are loops
	for i := range stuck {
		r.send(conns[i], ask("POST", fmt.Sprint("/", i)))
		h.wait(i + 1)
		for j := stuck; j < len(conns); j++ {
			r.send(conns[j], ask("GET", "/free"))
			r.want(in[j], "/free")
		}
	}
	close(release)
	for i := range stuck {
		r.want(in[i], fmt.Sprint("done /", i))
	}
}

func TestOneLoopForTwoCores(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 16: 8} {
		if got := loopsFor(cores); got != want {
			t.Errorf("%d loops on %d cores, want %d", got, cores, want)
		}
	}
}

// The kernel reports most new connections to one loop, which distributes them.
func TestConnectionsSpreadOverTheLoops(t *testing.T) {
	r := newLoopsRig(t, &fakePlain{}, 1000, 3, nil)
	const conns = 240
	var last []*bufio.Reader
	for range conns {
		c := r.dial()
		r.send(c, ask("GET", "/1"))
		last = append(last, bufio.NewReader(c))
	}
	for _, b := range last {
		r.want(b, "/1")
	}
	for i, p := range r.l.loops {
		if n := p.count.Load(); n < conns/3-20 {
			t.Errorf("loop %d has %d of %d connections", i, n, conns)
		}
	}
}

// The limit on connections is one for all loops and net/http.
func TestLoopsShareTheLimit(t *testing.T) {
	r := newLoopsRig(t, &fakePlain{}, 2, 3, nil)
	for i := range 10 {
		one, two := r.dial(), r.dial()
		b1, b2 := bufio.NewReader(one), bufio.NewReader(two)
		r.send(one, ask("GET", "/1"))
		r.want(b1, "/1")
		r.send(two, ask("GET", "/odd"))
		r.want(b2, `net/http GET /odd ""`)
		three := r.dial()
		r.send(three, ask("GET", "/3"))
		r.send(two, ask("GET", "/2"))
		r.want(b2, `net/http GET /2 ""`)
		if n := len(r.l.open); n != 2 {
			t.Fatalf("round %d: %d connections are open, want 2", i, n)
		}
		for _, c := range []io.Closer{one, two} {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r.want(bufio.NewReader(three), "/3")
		if err := three.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The time that a loop has waited for a request counts towards net/http's timeout.
func TestTimeInTheLoopCountsForNetHTTP(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(inner, Options{Max: 2})
	if err := l.StartLoops(LoopOptions{Plain: &fakePlain{}, Loops: 1, HeaderTime: time.Minute, IdleTime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		l.EndLoops(0)
	}()
	began := time.Now()
	out, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const half = "GET /1 HTTP/1.1\r\nHost:"
	if _, err := io.WriteString(out, half); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept() // once the loop no longer waits for the rest
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	waited := time.Since(began)
	c := accepted.(*Conn)
	asked := time.Now().Add(time.Minute)
	if err := c.SetReadDeadline(asked); err != nil {
		t.Fatal(err)
	}
	if given := asked.Sub(c.deadline); given < restTime || given > waited {
		t.Errorf("%v of the minute is over, want %v to %v", given, restTime, waited)
	}
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != half {
		t.Errorf("read %q, %v", b[:n], err)
	}
	// The next request has the whole timeout again.
	c.begin()
	if err := c.SetReadDeadline(asked); err != nil || !c.deadline.Equal(asked) {
		t.Errorf("the deadline of the next request is %v, %v, want %v", c.deadline, err, asked)
	}
}
