package db

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
)

// takeTurn puts an increment first into the queue of a database that is left
// alone, so that it is the test's turn.
func takeTurn(t *testing.T, d *DB) *op {
	t.Helper()
	for {
		o := newOp(verbAdd, kindCounter, Key{"a", "k"})
		o.n, o.min, o.max = 1, 0, 1000
		lead, err := d.queue.put(o)
		if err != nil {
			t.Fatal(err)
		}
		if lead {
			return o
		}
		<-o.done // the standby was looking whether there is anything to do
	}
}

// The standby finds that a hold is over while a caller writes, and comes back to it.
func TestTimerThatRingsInACallersTurnIsNotForgotten(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	hold(t, d, "holder", time.Minute)
	next := wait(t, d, context.Background(), 1, "next")
	o := takeTurn(t, d)
	g := barrierAt(fs)
	go d.lead()
	<-g.reached
	clock.pass(time.Minute)
	d.timer.Reset(0)
	for wanted := false; !wanted; {
		runtime.Gosched()
		d.queue.mu.Lock()
		wanted = d.queue.wanted
		d.queue.mu.Unlock()
	}
	g.open()
	<-o.done
	if g := <-next; g.err != nil {
		t.Fatal(g.err)
	}
	mustClose(t, d)
}

// soon waits for what has to come.
func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal(what, "does not come")
		panic("not reached")
	}
}

// What comes by itself comes also where nobody asks after a caller's turn.
func TestAHoldEndsAfterACallersTurn(t *testing.T) {
	options := tiny(memdisk.New(), newTestClock())
	options.Clock = nil // the machine's
	d := mustOpen(t, options)
	unlock(t, d, hold(t, d, "first", time.Hour))
	for d.log.NeedsPrepare() {
		runtime.Gosched() // until the standby has no reason to look but the timer
	}
	o := takeTurn(t, d)
	var locks []*op
	for _, owner := range []string{"holder", "next"} {
		l := newOp(verbLock, kindLock, door)
		l.owner, l.dur, l.wait, l.ctx = owner, int64(10*time.Millisecond), int64(time.Hour), context.Background()
		if lead, err := d.queue.put(l); err != nil || lead {
			t.Fatalf("two lead: %v", err)
		}
		locks = append(locks, l)
	}
	d.lead()
	<-o.done
	<-locks[0].done
	soon(t, "the end of the hold", locks[1].done)
	for _, l := range locks {
		if l.err != nil {
			t.Error(l.err)
		}
	}
	mustClose(t, d)
}

// A mark is for a log that is quiet, and a log that is written to is not.
func TestNoMarksBetweenWrites(t *testing.T) {
	options := tiny(memdisk.New(), newTestClock())
	options.Segment = 1 << 20 // all of it in one, without a seal
	d := mustOpen(t, options)
	wantDone(t, "an increment", addN(d, "a", 1))
	before := d.log.Stats().Appended
	wantDone(t, "an increment", addN(d, "a", 1))
	one := d.log.Stats().Appended - before
	for range 1000 {
		wantDone(t, "an increment", addN(d, "a", 1))
		d.timer.Reset(0) // it rings, since something else was due
	}
	if got := d.log.Stats().Appended - before; got != 1001*one {
		t.Errorf("%d bytes logged, want 1001 times %d", got, one)
	}
	mustClose(t, d)
}

// A caller writes one batch, whatever else waits: what is left of it is the standby's.
func TestACallersTurnIsOneBatch(t *testing.T) {
	fs := memdisk.New()
	options := tiny(fs, newTestClock())
	options.Segment = 4 * maxBatch
	d := mustOpen(t, options)
	o := takeTurn(t, d)
	before := d.Stats().Commits
	var others []*op
	for range 5 {
		v := newOp(verbSet, kindCounter, Key{"a", "v"})
		data := make([]byte, maxBatch/4)
		v.kv = &valueOp{data: data, sum: kvlog.SumValue(data), check: AnyVersion}
		if lead, err := d.queue.put(v); err != nil || lead {
			t.Fatalf("two lead: %v", err)
		}
		others = append(others, v)
	}
	first, led := barrierAt(fs), make(chan struct{})
	go func() {
		d.lead()
		close(led)
	}()
	<-first.reached
	second := barrierAt(fs)
	first.open()
	soon(t, "the second batch", second.reached)
	soon(t, "the end of the turn", led)
	second.open()
	<-o.done
	for _, v := range others {
		<-v.done
		if v.err != nil {
			t.Error(v.err)
		}
	}
	if n := d.Stats().Commits - before; n != 2 {
		t.Errorf("%d batches, want what fits into one and the rest", n)
	}
	mustClose(t, d)
}

// Servers recover from what panics in a handler, but nobody can go on behind
// half a batch.
func TestAPanicInACallersTurnEndsTheProcess(t *testing.T) {
	const child = "CLOUDDRAGON_PANICS"
	if os.Getenv(child) == "" {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), child+"=1")
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: out of tokens\n") {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	o := tiny(memdisk.New(), newTestClock())
	o.OnCommit = func(Commit) { panic("out of tokens") }
	d := mustOpen(t, o)
	defer func() {
		t.Log("recovered from", recover())
	}()
	_, _ = d.AddCounter(Key{"a", "k"}, 1, 0, 10) // of no interest
}
