package front

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waiters is a Plain whose GETs below /wait wait.
type waiters struct {
	fakePlain
	waiting chan *Exchange // each exchange whose Start has returned Waiting, or is about to
	left    chan *Exchange // each that Leave was called for
	aborted atomic.Int32
}

func newWaiters() *waiters {
	w := &waiters{waiting: make(chan *Exchange, 1000), left: make(chan *Exchange, 1000)}
	w.start = func(x *Exchange) Verdict {
		switch {
		case x.Behind:
			return Later
		case len(x.Request.URL.Path) > 5 && x.Request.URL.Path[:5] == "/wait":
			w.waiting <- x
			return Waiting
		case x.Request.Method == "POST":
			x.Keep = true
			return Pending
		}
		say(x, x.Request.URL.Path)
		return Answered
	}
	w.resume = func(x *Exchange) Verdict {
		if x.Gone {
			w.aborted.Add(1)
			return Aborted
		}
		say(x, "resumed "+x.Request.URL.Path)
		return Answered
	}
	w.leave = func(x *Exchange) {
		w.left <- x
		x.Done()
	}
	return w
}

func TestWaitingRequestIsAnsweredBeforeTheNext(t *testing.T) {
	w := newWaiters()
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c, other := r.dial(), r.dial()
	b := bufio.NewReader(c)
	r.send(c, ask("GET", "/1")+ask("GET", "/wait2")+ask("GET", "/3")+ask("GET", "/wait4")+ask("POST", "/5"))
	r.want(b, "/1")
	x := soon(t, "the wait", w.waiting)
	r.send(other, ask("GET", "/free"))
	r.want(bufio.NewReader(other), "/free")
	x.Done()
	r.want(b, "resumed /wait2")
	r.want(b, "/3")
	soon(t, "the wait", w.waiting).Done()
	r.want(b, "resumed /wait4")
	r.want(b, "done /5")
}

// A wait may be over before Start has returned, also when another goroutine is the loop's owner
// by then, and it may go on.
func TestWaitThatIsOverAtOnce(t *testing.T) {
	w := newWaiters()
	var times atomic.Int32
	release := make(chan struct{})
	w.start = func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/free" {
			say(x, "free")
			return Answered
		}
		x.Done()
		if x.Request.URL.Path == "/slow" {
			w.waiting <- x
			<-release
		}
		return Waiting
	}
	w.resume = func(x *Exchange) Verdict {
		if x.Gone {
			return Aborted
		}
		if times.Add(1)%3 != 0 {
			x.Done()
			return Waiting
		}
		say(x, x.Request.URL.Path)
		return Answered
	}
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c, other := r.dial(), r.dial()
	b := bufio.NewReader(c)
	r.send(c, ask("GET", "/1")+ask("GET", "/2"))
	r.want(b, "/1")
	r.want(b, "/2")
	r.send(c, ask("GET", "/slow")+ask("GET", "/3"))
	soon(t, "the wait", w.waiting)
	r.send(other, ask("GET", "/free"))
	r.want(bufio.NewReader(other), "free")
	close(release)
	r.want(b, "/slow")
	r.want(b, "/3")
}

func TestResumedRequestCanBeHandedOver(t *testing.T) {
	w := newWaiters()
	w.resume = func(*Exchange) Verdict { return Odd }
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c := r.dial()
	r.send(c, ask("GET", "/1")+"POST /wait2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+ask("GET", "/3"))
	b := bufio.NewReader(c)
	r.want(b, "/1")
	soon(t, "the wait", w.waiting).Done()
	r.want(b, `net/http POST /wait2 "hi"`)
	r.want(b, `net/http GET /3 ""`)
}

// A client that hangs up leaves, whatever it has sent before.
func TestClientThatHangsUpLeavesItsWait(t *testing.T) {
	for how, hangUp := range hangUps {
		for _, more := range []string{"", ask("GET", "/next"), "GET /ne"} {
			w := newWaiters()
			r := newLoopRig(t, &w.fakePlain, 1, nil) // so the next client needs its place
			c := r.dial()
			r.send(c, ask("GET", "/1")+ask("GET", "/wait2")+more)
			x := soon(t, "the wait", w.waiting)
			if err := hangUp(c); err != nil {
				t.Fatal(err)
			}
			if y := soon(t, "the client's leave", w.left); y != x {
				t.Errorf("%s: another request left", how)
			}
			_ = c.Close()
			d := r.dial()
			r.send(d, ask("GET", "/3"))
			r.want(bufio.NewReader(d), "/3")
			if n := w.aborted.Load(); n != 1 || len(w.left) != 0 {
				t.Errorf("%s: %d requests ended and %d more left, want one and none", how, n, len(w.left))
			}
		}
	}
}

// The operation of a client that hangs up leaves once it was submitted, and learns that the client
// is gone.
func TestClientThatHangsUpLeavesItsOperation(t *testing.T) {
	h := newHold()
	w := newWaiters()
	w.submit = h.submit
	finished := make(chan bool, 1)
	w.finish = func(x *Exchange) Verdict {
		finished <- x.Gone
		return Aborted
	}
	r := newLoopRig(t, &w.fakePlain, 1, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1"))
	x := h.wait(1)[0]
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if soon(t, "the client's leave", w.left) != x || !soon(t, "its answer", finished) {
		t.Error("the request that left is another one, or its client is not known to be gone")
	}
}

// The socket is asked before a client is told that its wait is over, since the grant would be lost.
func TestHangUpThatEpollHasNotReportedIsSeen(t *testing.T) {
	w := newWaiters()
	var x *Exchange
	var second *net.TCPConn
	gone := make(chan bool, 1)
	w.resume = func(z *Exchange) Verdict {
		if z == x {
			// Both are resumed without a look at epoll in between.
			if err := second.Close(); err != nil {
				t.Error(err)
			}
			say(z, "resumed")
			return Answered
		}
		gone <- z.Gone
		return Aborted
	}
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	first := r.dial()
	second = r.dial()
	r.send(first, ask("GET", "/wait1"))
	x = soon(t, "the wait", w.waiting)
	r.send(second, ask("GET", "/wait2"))
	y := soon(t, "the wait", w.waiting)
	p := r.l.loops[0]
	p.tell(func() { p.done = append(p.done, x, y) })
	r.want(bufio.NewReader(first), "resumed")
	if !soon(t, "the second client's answer", gone) {
		t.Error("a client that has hung up counts as there")
	}
}

// Connections that are cut leave too.
func TestWaitEndsWithTheLoop(t *testing.T) {
	w := newWaiters()
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c := r.dial()
	r.send(c, ask("GET", "/wait1"))
	soon(t, "the wait", w.waiting)
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.l.EndLoops(0)
	soon(t, "the client's leave", w.left)
	if n, err := io.Copy(io.Discard, c); n != 0 {
		t.Errorf("a request that waited was answered: %d bytes, %v", n, err)
	}
}

// Many waits that end at once do not hold up other clients until all are answered.
func TestManyWaitsThatEndLeaveTimeForOthers(t *testing.T) {
	const many = 10 * maxResumed
	w := newWaiters()
	var other *net.TCPConn
	var resumed, before atomic.Int32
	var once sync.Once
	w.resume = func(x *Exchange) Verdict {
		once.Do(func() {
			if _, err := io.WriteString(other, ask("GET", "/2")); err != nil {
				t.Error(err)
			}
		})
		resumed.Add(1)
		say(x, "resumed")
		return Answered
	}
	start := w.start
	w.start = func(x *Exchange) Verdict {
		before.Store(resumed.Load())
		return start(x)
	}
	r := newLoopRig(t, &w.fakePlain, many+1, nil)
	var conns []*net.TCPConn
	var xs []*Exchange
	for i := range many {
		c := r.dial()
		r.send(c, ask("GET", fmt.Sprint("/wait", i)))
		conns, xs = append(conns, c), append(xs, soon(t, "the wait", w.waiting))
	}
	other = r.dial()
	b := bufio.NewReader(other)
	r.send(other, ask("GET", "/1"))
	r.want(b, "/1")
	p := r.l.loops[0]
	p.tell(func() { p.done = append(p.done, xs...) })
	r.want(b, "/2")
	for _, c := range conns {
		r.want(bufio.NewReader(c), "resumed")
	}
	if n := before.Load(); n >= many {
		t.Errorf("%d waits were answered before another client was served, want at most some hundred", n)
	}
}

// A lock that was granted to a client that is gone is given back before the server ends.
func TestLoopEndsAfterWhatIsPendingForWhoIsGone(t *testing.T) {
	h := newHold()
	w := newWaiters()
	w.start = func(x *Exchange) Verdict { return Pending }
	w.submit = h.submit
	var finished atomic.Int32
	w.finish = func(*Exchange) Verdict {
		finished.Add(1)
		return Answered
	}
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("POST", "/2"))
	xs := h.wait(2)
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil { // resets the connection, so the first answer cannot be written
		t.Fatal(err)
	}
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	xs[0].Done()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.l.EndLoops(30 * time.Second)
	}()
	select {
	case <-ended:
	case <-time.After(50 * time.Millisecond):
	}
	xs[1].Done()
	soon(t, "the end of the loops", ended)
	if n := finished.Load(); n != 2 {
		t.Errorf("%d of 2 requests were finished", n)
	}
}

// A client may have hung up before its request is read.
func TestStartLearnsThatTheClientIsGone(t *testing.T) {
	w := newWaiters()
	w.start = func(x *Exchange) Verdict {
		say(x, fmt.Sprint("gone: ", x.Gone))
		return Answered
	}
	r := newLoopRig(t, &w.fakePlain, 1, nil)
	first := r.dial()
	r.send(first, ask("GET", "/1"))
	r.want(bufio.NewReader(first), "gone: false")
	second := r.dial() // it is accepted once the first one is closed
	r.send(second, ask("GET", "/2"))
	if err := second.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, second)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(bufio.NewReader(second), "gone: true")
}

// awaitEnd waits until the server's kernel knows that c has closed its side.
func awaitEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	const finWait2 = 5 // the state TCP_FIN_WAIT2 of the kernel
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; runtime.Gosched() {
		var info *unix.TCPInfo
		var inner error
		err := raw.Control(func(fd uintptr) { info, inner = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err := errors.Join(err, inner); err != nil {
			t.Fatal(err)
		}
		if info.State == finWait2 {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the connection is in state %d", info.State)
		}
	}
}

// Nothing behind a request that ends the connection without an answer is done.
func TestNothingIsStartedBehindWhatIsAborted(t *testing.T) {
	w := newWaiters()
	var behind atomic.Int32
	w.start = func(x *Exchange) Verdict {
		switch x.Request.URL.Path {
		case "/gone":
			return Aborted
		case "/3":
			behind.Add(1)
		}
		say(x, x.Request.URL.Path)
		return Answered
	}
	r := newLoopRig(t, &w.fakePlain, 10, nil)
	c := r.dial()
	r.send(c, ask("GET", "/1")+ask("GET", "/gone")+ask("GET", "/3"))
	b := bufio.NewReader(c)
	r.want(b, "/1")
	if _, err := b.ReadByte(); err != io.EOF {
		t.Errorf("behind the answer: %v, want the end", err)
	}
	if n := behind.Load(); n != 0 {
		t.Errorf("%d requests were started behind one that ends the connection", n)
	}
}
