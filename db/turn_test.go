package db

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/disk/memdisk"
	"clouddragon/kvlog"
)

// The writer finds that a hold is over while a caller writes, and comes back to it.
func TestTimerThatRingsInACallersTurnIsNotForgotten(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Clock = nil // so that the timer rings by itself
	d := mustOpen(t, o)
	hold(t, d, "holder", 20*time.Millisecond)
	next := wait(t, d, context.Background(), 1, "next")
	g := barrierAt(fs)
	added := make(chan error)
	go func() {
		_, err := d.AddCounter(Key{"a", "k"}, 1, 0, 10)
		added <- err
	}()
	<-g.reached
	for wanted := false; !wanted; {
		select { // until the timer has rung
		case <-next:
			t.Fatal("the hold was over before the caller's turn: nothing is tested")
		case <-time.After(time.Millisecond):
		}
		d.queue.mu.Lock()
		wanted = d.queue.wanted
		d.queue.mu.Unlock()
	}
	g.open()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	if g := <-next; g.err != nil {
		t.Fatal(g.err)
	}
	mustClose(t, d)
}

// A caller writes one batch, whatever else waits: what is left of it is the writer's.
func TestACallersTurnIsOneBatch(t *testing.T) {
	options := tiny(memdisk.New(), newTestClock())
	options.Segment = 4 * maxBatch
	d := mustOpen(t, options)
	o := newOp(verbAdd, kindCounter, Key{"a", "k"})
	o.n, o.min, o.max = 1, 0, 1000
	lead, err := d.queue.put(o)
	if err != nil || !lead {
		t.Fatalf("with nobody else about it is not the caller's turn: %v", err)
	}
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
	d.lead()
	<-o.done
	for _, v := range others {
		<-v.done
		if v.err != nil {
			t.Error(v.err)
		}
	}
	if n := d.Stats().Commits; n != 2 {
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
		if err == nil || !strings.Contains(string(out), "panic: out of tokens\n") || !strings.Contains(string(out), "db.(*DB).lead") {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	o := small(t)
	o.OnCommit = func(Commit) { panic("out of tokens") }
	d := mustOpen(t, o)
	defer func() {
		t.Log("recovered from", recover())
	}()
	_, _ = d.AddCounter(Key{"a", "k"}, 1, 0, 10) // of no interest
}
