package commit_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
)

var noValue = kvlog.Found{}

// takeTurn puts the first call into the queue of an idle writer, so that the test has the
// turn.
func takeTurn(t *testing.T, r *rig) (done <-chan struct{}) {
	t.Helper()
	for r.store.Log.NeedsPrepare() {
		runtime.Gosched() // a segment that gets ready wakes the standby
	}
	for {
		c, done := call(add("turn", 1))
		lead, err := r.Put(c)
		wantDone(t, "put", err)
		for range 1000 {
			runtime.Gosched() // a wake-up that is on its way arrives
		}
		switch {
		case lead && !r.StandbyWants():
			return done
		case lead:
			r.Lead()
		}
		<-done // the standby was looking whether there is anything to do
	}
}

// leadToTheDisk begins a caller's turn, which waits for the disk until the barrier is opened.
func leadToTheDisk(t *testing.T, r *rig) (done <-chan struct{}, g *memdisk.Barrier) {
	t.Helper()
	done = takeTurn(t, r)
	g = r.fs.NewBarrier()
	go r.Lead()
	<-g.Reached
	return done, g
}

// The standby's timer fires during a caller's turn, and the standby handles it afterwards.
func TestTimerThatRingsInACallersTurnIsNotForgotten(t *testing.T) {
	r := newRig(t, 1<<20, commit.WithoutTick(commit.Options{}))
	done, g := leadToTheDisk(t, r)
	r.alarm.set(1_800_000_000e9 + int64(time.Minute))
	r.pass(time.Minute)
	r.Ring()
	for !r.StandbyWants() {
		runtime.Gosched()
	}
	g.Open()
	<-done
	awaitAlarm(t, r)
	r.close(t)
}

func awaitAlarm(t *testing.T, r *rig) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		if n, _ := r.number("alarm"); n == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the alarm does not go off")
		}
	}
}

// Timers stand still while the machine sleeps, so the clocks are looked at in between.
func TestTimerThatStoodStillIsNotTrusted(t *testing.T) {
	r := newRig(t, 1<<20, commit.Options{})
	done := takeTurn(t, r)
	r.alarm.set(1_800_000_000e9 + int64(time.Hour))
	r.Lead()
	<-done
	r.pass(time.Hour)
	awaitAlarm(t, r)
	r.close(t)
}

// A stop that comes during a caller's turn is not forgotten.
func TestCloseInACallersTurnEnds(t *testing.T) {
	r := newRig(t, 1<<20, commit.WithoutTick(commit.Options{}))
	done, g := leadToTheDisk(t, r)
	closed := make(chan struct{})
	go func() {
		r.Writer.Close()
		close(closed)
	}()
	for !r.StandbyWants() {
		runtime.Gosched()
	}
	g.Open()
	soon(t, "the end of the turn", done)
	soon(t, "the end of the writer", closed)
	wantDone(t, "close", r.store.Close(r.tokens.Stop()))
}

// A call that is queued during a caller's turn is answered although no other call comes.
func TestCallThatComesInACallersTurnIsAnswered(t *testing.T) {
	r := newRig(t, 1<<20, commit.WithoutTick(commit.Options{}))
	done, g := leadToTheDisk(t, r)
	c, answered := call(add("a", 1))
	if lead, err := r.Put(c); err != nil || lead {
		t.Fatalf("two lead: %v", err)
	}
	g.Open()
	soon(t, "the end of the turn", done)
	soon(t, "the answer", answered)
	r.close(t)
}

// After a caller's turn, timed work is done even if no other call comes.
func TestTimerIsSetAtTheEndOfACallersTurn(t *testing.T) {
	r := newRig(t, 1<<20, commit.WithoutTick(commit.Options{}))
	done := takeTurn(t, r)
	r.alarm.set(1_800_000_000e9 + int64(10*time.Millisecond))
	r.Lead()
	<-done
	r.pass(10 * time.Millisecond)
	awaitAlarm(t, r)
	r.close(t)
}

// A durability mark is written when the log is quiet, not between writes.
func TestNoDurabilityMarksBetweenWrites(t *testing.T) {
	r := newRig(t, 1<<20, commit.Options{}) // all of it in one segment, without a seal
	wantDone(t, "an increment", r.Do(add("a", 1)))
	before := r.store.Log.Stats().Appended
	wantDone(t, "an increment", r.Do(add("a", 1)))
	one := r.store.Log.Stats().Appended - before
	for range 1000 {
		wantDone(t, "an increment", r.Do(add("a", 1)))
		r.Ring()
	}
	if got := r.store.Log.Stats().Appended - before; got != 1001*one {
		t.Errorf("%d bytes logged, want 1001 times %d", got, one)
	}
	r.close(t)
}

// A caller writes one batch, whatever else waits: the standby writes the rest.
func TestACallersTurnIsOneBatch(t *testing.T) {
	r := newRig(t, 4*commit.MaxBatch, commit.WithoutTick(commit.Options{}))
	done := takeTurn(t, r)
	before := r.Commits()
	var others []<-chan struct{}
	for range 5 {
		c, answered := call(&large{data: make([]byte, commit.MaxBatch/4)})
		if lead, err := r.Put(c); err != nil || lead {
			t.Fatalf("two lead: %v", err)
		}
		others = append(others, answered)
	}
	first, led := r.fs.NewBarrier(), make(chan struct{})
	go func() {
		r.Lead()
		close(led)
	}()
	<-first.Reached
	second := r.fs.NewBarrier()
	first.Open()
	soon(t, "the second batch", second.Reached)
	soon(t, "the end of the turn", led)
	second.Open()
	<-done
	for _, answered := range others {
		<-answered
	}
	if n := r.Commits() - before; n != 2 {
		t.Errorf("%d batches, want what fits into one and the rest", n)
	}
	r.close(t)
}

// HTTP servers recover from the panic of a handler, but after half a batch the process must
// end.
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
	r := newRig(t, 16<<10, commit.Options{Batch: func(commit.Batch) { panic("out of tokens") }})
	defer func() {
		t.Log("recovered from", recover())
	}()
	_ = r.Do(add("a", 1)) // of no interest
}

// A call that was only queued leaves the batch to the standby.
func TestQueuedCallsAreTheStandbys(t *testing.T) {
	r := newRig(t, 16<<10, commit.Options{})
	g := r.fs.NewBarrier()
	c, done := call(add("a", 1))
	wantDone(t, "queue", r.Queue(c))
	soon(t, "the standby's batch", g.Reached)
	g.Open()
	<-done
	wantDone(t, "the call", c.Err)
	r.close(t)
}
