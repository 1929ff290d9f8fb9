package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// errCrash stops a mover as if it had been killed.
var errCrash = errors.New("the command is killed here")

// atStep is a writer for the steps of a mover. After step n, from 0, it calls a function.
type atStep struct {
	n    int
	then func() error
	all  bytes.Buffer
}

func (a *atStep) Write(p []byte) (int, error) {
	a.all.Write(p)
	if a.n--; a.n == -1 {
		return len(p), a.then()
	}
	return len(p), nil
}

// moveSteps is the number of lines that a move prints, from the freeze to the end.
const moveSteps = 9

// TestMoveGoesOnAfterAnyCrash kills the source, the target or the command between any two
// steps, while clients use the account through the map.
func TestMoveGoesOnAfterAnyCrash(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"source", "target", "command", "all"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			r := newMoveRig(t)
			for n := range moveSteps {
				acc := "acc" + strconv.Itoa(n)
				r.fill(acc)
				load := r.load(acc)
				out := &atStep{n: n, then: func() error {
					if victim == "source" || victim == "all" {
						r.from.kill()
					}
					if victim == "target" || victim == "all" {
						r.to.kill()
					}
					if victim == "command" || victim == "all" {
						return errCrash
					}
					return nil
				}}
				var err error
				for try := 0; try < 20; try++ {
					if err = r.mover(acc, out).run(t.Context(), r.file); err == nil {
						break
					}
				}
				if err != nil {
					t.Fatalf("step %d: the move does not end: %v; it said\n%s", n, err, out.all.String())
				}
				load.stop()
				r.moved(acc, load)
				if t.Failed() {
					t.Fatalf("it was killed behind step %d; the command said\n%s", n, out.all.String())
				}
			}
		})
	}
}

// fill puts something into an account.
func (r *moveRig) fill(acc string) {
	r.t.Helper()
	var batch strings.Builder
	for i := range 300 {
		fmt.Fprintf(&batch, "PUT kv/k%d value %d\nPOST counter/c%d?add=%d\nPOST lock/l%d?id=me&dur=3000\n", i, i, i, i, i)
	}
	r.wants(r.from, 200, "*", "POST", "/db/"+acc+"/batch", batch.String())
	r.wants(r.from, 200, "1\n", "POST", "/db/"+acc+"/sequence/once", "", "Idempotency-Key: once")
}

// moved checks an account that has moved.
func (r *moveRig) moved(acc string, load *moveLoad) {
	r.t.Helper()
	db := "/db/" + acc
	var batch, want strings.Builder
	for i := range 300 {
		fmt.Fprintf(&batch, "GET kv/k%d\nGET counter/c%d\n", i, i)
		fmt.Fprintf(&want, "200 value %d\n200 %d\n", i, i)
	}
	r.wants(r.to, 200, want.String(), "POST", db+"/batch", batch.String())
	r.wants(r.to, 409, "*", "POST", db+"/lock/l299?id=other", "")
	r.wants(r.to, 200, "1\n", "POST", db+"/sequence/once", "", "Idempotency-Key: once")
	r.wants(r.from, 421, "*", "GET", db+"/kv/k0", "")
	if !strings.Contains(r.mapped(), "\n"+acc+" two\n") {
		r.t.Errorf("the map does not say that %s is on two", acc)
	}
	if load != nil {
		load.check(r)
	}
}

// TestMoveGoesOnAfterItWasKilled kills the real command with SIGKILL after each of its lines.
func TestMoveGoesOnAfterItWasKilled(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t)
	for n := range moveSteps {
		acc := "acc" + strconv.Itoa(n)
		r.fill(acc)
		load := r.load(acc)
		cmd := exec.Command(binary, "move", "-account", acc, "-from", r.from.base, "-to", r.to.base, "-map", r.file)
		cmd.Env = append(os.Environ(), "CLOUDDRAGON_TOKEN=secret")
		cmd.Stdout = &atStep{n: n, then: func() error { return cmd.Process.Kill() }}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		r.move(0, "-account", acc, "-map", r.file)
		load.stop()
		r.moved(acc, load)
		if t.Failed() {
			t.Fatalf("it was killed behind line %d", n)
		}
	}
	r.from.stop()
	r.to.stop()
}

// moveLoad is a client that uses an account while it moves.
type moveLoad struct {
	acc    string
	cancel context.CancelFunc
	done   chan struct{}
	first  chan struct{} // closed once the source has answered
	second chan struct{} // closed once the target has
	// Of the one goroutine, until done is closed.
	numbers []int64
	tokens  []int64
	kept    int64 // the counter's sum according to the answers; each call has its own retry key
	both    []string
}

// stop ends the load, once the target has answered.
func (l *moveLoad) stop() {
	select {
	case <-l.second:
	case <-time.After(patience):
		l.both = append(l.both, "the target does not answer")
	}
	l.cancel()
	<-l.done
}

// load begins to use an account, and returns once the source has answered.
func (r *moveRig) load(acc string) *moveLoad {
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &moveLoad{acc: acc, cancel: cancel, done: make(chan struct{}), first: make(chan struct{}), second: make(chan struct{})}
	go func() {
		defer close(l.done)
		here, there := false, false // the source, the target has answered
		for ctx.Err() == nil {
			// Both servers are asked, whatever the map says: only one may answer.
			for _, s := range []*movedServer{r.from, r.to} {
				if s == r.to && !there && !r.begun(acc) {
					continue // it would take an unknown account for one of its own
				}
				status, body, _ := r.call(s, "POST", "/db/"+acc+"/sequence/s", "")
				if status == 200 {
					if s == r.from && there {
						l.both = append(l.both, fmt.Sprintf("the source answered %q after the target", body))
					}
					if s == r.from && !here {
						here = true
						close(l.first)
					}
					if s == r.to && !there {
						there = true
						close(l.second)
					}
					n, _ := strconv.ParseInt(strings.TrimSpace(body), 10, 64)
					l.numbers = append(l.numbers, n)
				} else if status != 0 && status != 421 && status != 503 {
					l.both = append(l.both, fmt.Sprintf("%d %q", status, body))
				}
				if status, body, _ = r.call(s, "POST", "/db/"+acc+"/mlock/m?dur=0.001&wait=0", ""); status == 200 {
					n, _ := strconv.ParseInt(strings.TrimSpace(body), 10, 64)
					l.tokens = append(l.tokens, n)
				}
				key := fmt.Sprintf("Idempotency-Key: key%d", l.kept)
				if status, _, _ = r.call(s, "POST", "/db/"+acc+"/counter/sum", "", key); status == 200 {
					l.kept++
				}
			}
		}
	}()
	<-l.first
	return l
}

// begun reports whether the target knows of the move.
func (r *moveRig) begun(acc string) bool {
	_, body, _ := r.call(r.to, "GET", "/move?account="+acc, "")
	return strings.Contains(body, `"id"`)
}

// check looks for what was lost or done twice.
func (l *moveLoad) check(r *moveRig) {
	r.t.Helper()
	for _, line := range l.both {
		r.t.Errorf("account %s: %s", l.acc, line)
	}
	for what, all := range map[string][]int64{"number": l.numbers, "token": l.tokens} {
		if !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
			r.t.Errorf("account %s: a %s twice, or going back: %v", l.acc, what, all)
		}
	}
	if len(l.numbers) == 0 {
		r.t.Errorf("account %s: nothing was answered", l.acc)
		return
	}
	if got, last := r.number(r.to, "GET", "/db/"+l.acc+"/sequence/s"), l.numbers[len(l.numbers)-1]; got < last {
		r.t.Errorf("account %s: the sequence is at %d, and %d was answered", l.acc, got, last)
	}
	status, body, _ := r.call(r.to, "GET", "/db/"+l.acc+"/counter/sum", "")
	// The last call may have been done without its answer being seen.
	if got, _ := strconv.ParseInt(strings.TrimSpace(body), 10, 64); status != 200 && l.kept > 0 || got < l.kept || got > l.kept+1 {
		r.t.Errorf("account %s: the counter is at %q, and %d were added", l.acc, body, l.kept)
	}
}

// eachStep is a writer for the steps of a mover. The test checks the servers after each step.
type eachStep func(line string)

func (f eachStep) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// TestOneServerAnswersBehindEachStep asks both servers and checks the map after each step: the
// target answers once the map names it, and the source never again.
func TestOneServerAnswersBehindEachStep(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t)
	r.fill("shop")
	type answers struct{ source, target, backend string }
	steps := []struct {
		line string
		answers
	}{
		{"frozen on", answers{"503", "", "one"}},
		{"arrives on", answers{"503", "503", "one"}},
		{"things are copied", answers{"503", "503", "one"}},
		{"all of it is on", answers{"503", "503", "one"}},
		{"does not live on", answers{"421", "503", "one"}},
		{"on two in", answers{"421", "503", "two"}},
		{"lives on", answers{"421", "200", "two"}},
		{"removed from", answers{"421", "200", "two"}},
		{"reload HAProxy", answers{"421", "200", "two"}},
	}
	n := 0
	err := r.mover("shop", eachStep(func(line string) {
		if n == len(steps) || !strings.Contains(line, steps[n].line) {
			t.Errorf("line %d is %q", n, line)
			return
		}
		want := steps[n].answers
		n++
		var got answers
		source, _, _ := r.call(r.from, "GET", "/db/shop/kv/k0", "")
		got.source = strconv.Itoa(source)
		if want.target != "" { // else it has no mark yet
			target, _, _ := r.call(r.to, "GET", "/db/shop/kv/k0", "")
			got.target = strconv.Itoa(target)
		}
		_, rest, _ := strings.Cut(r.mapped(), "\nshop ")
		got.backend, _, _ = strings.Cut(rest, "\n")
		if got != want {
			t.Errorf("behind %q: %+v, want %+v", line, got, want)
		}
	})).run(t.Context(), r.file)
	if err != nil || n != len(steps) {
		t.Errorf("%d steps, %v", n, err)
	}

	// A backup of the source keeps the mark.
	dir := t.TempDir()
	file, data := filepath.Join(dir, "copy.tar"), filepath.Join(dir, "data")
	for _, args := range [][]string{{"backup", "-server", r.from.base, "-o", file}, {"restore", "-data", data, file}} {
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), "CLOUDDRAGON_TOKEN=secret")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, b)
		}
	}
	copied := start(t, fmt.Sprintf("data: %s\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\naccounts: [shop, new]\n", data))
	for target, want := range map[string]int{"/db/shop/sequence/s": 421, "/db/other/sequence/s": 421, "/db/new/sequence/s": 200} {
		if got, body := ask(t, r.c, "POST", "http://"+copied.addr+target); got != want {
			t.Errorf("a restored copy: %s: %d %q, want %d", target, got, body, want)
		}
	}
	copied.stop()
	r.from.stop()
	r.to.stop()
}

// TestMovesAndUndosAtOnce lets several runs of the command, some of which give the move up,
// work on one account.
func TestMovesAndUndosAtOnce(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t, "accounts: [there]") // otherwise it takes an account whose move is given up for its own
	for n := range 6 {
		acc := "acc" + strconv.Itoa(n)
		r.fill(acc)
		load := r.load(acc)
		var all sync.WaitGroup
		for i := range 5 {
			m := r.mover(acc, io.Discard)
			all.Go(func() {
				// The runs refuse each other. Only the final state matters.
				if i < 3 {
					_ = m.run(t.Context(), r.file)
				} else {
					_ = m.undo(t.Context())
				}
			})
		}
		all.Wait()
		err := errCrash
		var out bytes.Buffer
		for try := 0; err != nil && try < 20; try++ {
			err = r.mover(acc, &out).run(t.Context(), r.file)
		}
		if err != nil {
			t.Fatalf("account %d: the move does not end: %v; it said\n%s", n, err, out.String())
		}
		load.stop()
		r.moved(acc, load)
	}
	r.from.stop()
	r.to.stop()
}
