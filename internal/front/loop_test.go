package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnswersComeInTheOrderOfTheRequests(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("POST", "/2")+ask("POST", "/3"))
	xs := h.wait(3)
	for _, i := range []int{2, 0, 1} {
		xs[i].Done()
	}
	b := bufio.NewReader(c)
	for i := range 3 {
		r.want(b, fmt.Sprintf("done /%d", i+1))
	}
}

// Nothing is answered before it is done, and a read sees the writes before it.
func TestReadWaitsForTheWritesBeforeIt(t *testing.T) {
	h := newHold()
	f := &fakePlain{submit: h.submit}
	var finished, early atomic.Int32
	f.finish = func(x *Exchange) Verdict {
		finished.Add(1)
		say(x, "done")
		return Answered
	}
	f.start = func(x *Exchange) Verdict {
		switch {
		case x.Request.Method == "POST":
			return Pending
		case x.Behind:
			return Later
		}
		if finished.Load() == 0 {
			early.Add(1)
		}
		say(x, "read")
		return Answered
	}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("GET", "/2"))
	x := h.wait(1)[0]
	// Another connection is served, which shows that the loop has passed the read.
	other := r.dial()
	finished.Add(1)
	r.send(other, ask("GET", "/3"))
	r.want(bufio.NewReader(other), "read")
	finished.Add(-1)
	x.Done()
	b := bufio.NewReader(c)
	r.want(b, "done")
	r.want(b, "read")
	if early.Load() != 0 {
		t.Error("the read was started before the write was done")
	}
}

func TestStalledCommitHoldsUpNobodyElse(t *testing.T) {
	h := newHold()
	release := make(chan struct{})
	f := &fakePlain{}
	f.submit = func(xs []*Exchange, lead bool) {
		h.submit(xs, lead)
		<-release // as a disk that stalls
		for _, x := range xs {
			x.Done()
		}
	}
	r := newLoopRig(t, f, 100, nil)
	stuck := make([]*net.TCPConn, 3)
	for i := range stuck {
		stuck[i] = r.dial()
		r.send(stuck[i], ask("POST", fmt.Sprint("/", i)))
		h.wait(i + 1)
		c := r.dial()
		r.send(c, ask("GET", "/free"))
		r.want(bufio.NewReader(c), "/free")
	}
	close(release)
	for i, c := range stuck {
		r.want(bufio.NewReader(c), fmt.Sprint("done /", i))
	}
}

func TestStalledStartHoldsUpNobodyElse(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	f := &fakePlain{start: func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/slow" {
			close(began)
			<-release
		}
		say(x, x.Request.URL.Path)
		return Answered
	}}
	r := newLoopRig(t, f, 10, nil)
	slow := r.dial()
	r.send(slow, ask("GET", "/slow")+ask("GET", "/next"))
	<-began
	c := r.dial()
	r.send(c, ask("GET", "/free"))
	r.want(bufio.NewReader(c), "/free")
	close(release)
	b := bufio.NewReader(slow)
	r.want(b, "/slow")
	r.want(b, "/next")
}

// The verdict of a Start that returns late still counts.
func TestStalledStartCanStillLeaveItToNetHTTP(t *testing.T) {
	for verdict, answer := range map[Verdict]string{Odd: `net/http GET /slow ""`, Later: "/slow", Pending: "done /slow"} {
		release, began := make(chan struct{}), make(chan struct{}, 2)
		var calls atomic.Int32
		f := &fakePlain{}
		f.start = func(x *Exchange) Verdict {
			if x.Request.URL.Path == "/slow" && calls.Add(1) == 1 {
				began <- struct{}{}
				<-release
				return verdict
			}
			say(x, x.Request.URL.Path)
			return Answered
		}
		r := newLoopRig(t, f, 10, nil)
		slow, c := r.dial(), r.dial()
		r.send(slow, ask("GET", "/slow"))
		<-began
		r.send(c, ask("GET", "/free"))
		r.want(bufio.NewReader(c), "/free")
		close(release)
		r.want(bufio.NewReader(slow), answer)
	}
}

// If commits are slow, they are left to the writer.
func TestSlowCommitsAreLeftToTheWriter(t *testing.T) {
	p := pace{}
	for range 100 {
		p.led(100 * time.Microsecond)
	}
	if !p.mayLead() {
		t.Error("fast commits are left to the writer")
	}
	p.late(lateAfter)
	led := 0
	for range 10 * probeEvery {
		if p.mayLead() {
			led++
		}
	}
	if led != 10 {
		t.Errorf("%d of %d commits were led, want 10", led, 10*probeEvery)
	}
	for range 100 {
		p.led(100 * time.Microsecond)
	}
	if !p.mayLead() {
		t.Error("the disk is fast again, and commits are left to the writer")
	}
}

func TestOddRequestIsHandedOverWithWhatCame(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	for _, odd := range []string{
		"POST /odd HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST /odd HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	} {
		h.mu.Lock()
		h.xs = nil
		h.mu.Unlock()
		c := r.dial()
		r.send(c, ask("POST", "/1")+odd[:len(odd)-3])
		x := h.wait(1)[0]
		r.send(c, odd[len(odd)-3:]+ask("GET", "/2"))
		x.Done()
		b := bufio.NewReader(c)
		r.want(b, "done /1")
		r.want(b, `net/http POST /odd "hello"`)
		r.want(b, `net/http GET /2 ""`)
	}
}

// A call that would have to wait is handed to net/http unchanged.
func TestKeptRequestCanStillBeHandedOver(t *testing.T) {
	f := &fakePlain{}
	f.start = func(x *Exchange) Verdict {
		x.Keep = true
		return Pending
	}
	f.finish = func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/waits" {
			return Odd
		}
		say(x, x.Request.URL.Path)
		return Answered
	}
	r := newLoopRig(t, f, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("POST", "/2")+"POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+ask("POST", "/3"))
	b := bufio.NewReader(c)
	r.want(b, "/1")
	r.want(b, "/2")
	r.want(b, `net/http POST /waits "hi"`)
	r.want(b, `net/http POST /3 ""`)
}

func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 10, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1")+ask("GET", "/2"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	h.wait(1)[0].Done()
	b := bufio.NewReader(c)
	r.want(b, "done /1")
	r.want(b, "/2")
	if _, err := b.ReadByte(); err != io.EOF {
		t.Errorf("after the answers: %v, want the end", err)
	}
}

func TestClientThatIsGoneCostsNothingButItsAnswer(t *testing.T) {
	h := newHold()
	r := newLoopRig(t, &fakePlain{submit: h.submit}, 1, nil)
	c := r.dial()
	r.send(c, ask("POST", "/1"))
	x := h.wait(1)[0]
	if err := hangUps["reset"](c); err != nil {
		t.Fatal(err)
	}
	// The connection's place is free before its request is done.
	d := r.dial()
	r.send(d, ask("GET", "/2"))
	b := bufio.NewReader(d)
	r.want(b, "/2")
	x.Done()
	r.send(d, ask("GET", "/3"))
	r.want(b, "/3")
}

// A connection keeps its place in the limit when it is handed to net/http.
func TestLimitHoldsAcrossTheHandOver(t *testing.T) {
	r := newLoopRig(t, &fakePlain{}, 2, nil)
	one, two := r.dial(), r.dial()
	b1, b2 := bufio.NewReader(one), bufio.NewReader(two)
	r.send(one, ask("GET", "/1"))
	r.want(b1, "/1")
	r.send(two, ask("GET", "/odd"))
	r.want(b2, `net/http GET /odd ""`)
	three := r.dial()
	r.send(three, ask("GET", "/3"))
	for range 3 {
		r.send(one, ask("GET", "/1"))
		r.want(b1, "/1")
		r.send(two, ask("GET", "/2"))
		r.want(b2, `net/http GET /2 ""`)
	}
	if n := len(r.l.open); n != 2 {
		t.Errorf("%d connections are open, want 2", n)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	r.want(bufio.NewReader(three), "/3")
}
