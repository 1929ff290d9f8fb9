package front

import (
	"bufio"
	"runtime"
	"testing"
	"time"
)

// withoutSweeps is a Plain whose POSTs first call f and put off the sweeps of their loop for the test.
func withoutSweeps(f func(p *loop)) *fakePlain {
	return &fakePlain{finish: func(x *Exchange) Verdict {
		x.loop.swept = time.Now().Add(time.Hour) // Finish has the loop
		f(x.loop)
		say(x, "done")
		return Answered
	}}
}

// A loop at the limit that closes a connection by itself accepts the next one at once, and not with
// its next sweep.
func TestPlaceOfAClosedConnectionIsTakenAtOnce(t *testing.T) {
	r := newLoopRig(t, withoutSweeps(func(*loop) {}), 1, nil)
	first := r.dial()
	r.send(first, ask("POST", "/1"))
	r.want(bufio.NewReader(first), "done")
	second := r.dial()
	for began := time.Now(); !r.l.loops[0].full.Load(); runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the loop does not notice the second connection")
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r.send(second, ask("GET", "/2"))
	r.want(bufio.NewReader(second), "/2")
}

// What a loop is told while it is awake counts before it sleeps again.
func TestLoopThatIsToldToEndWhileItIsAwakeEnds(t *testing.T) {
	for _, f := range []func(p *loop){
		func(p *loop) { p.closing, p.stopping = true, true },
		func(p *loop) { p.closing, p.stopping, p.killed = true, true, true },
	} {
		r := newLoopRig(t, withoutSweeps(func(p *loop) { p.tell(func() { f(p) }) }), 10, nil)
		r.send(r.dial(), ask("POST", "/1"))
		for _, c := range []chan struct{}{r.l.loops[0].deaf, r.l.loops[0].ended} {
			select {
			case <-c:
			case <-time.After(20 * time.Second):
				t.Fatal("the loop does not end")
			}
		}
	}
}
