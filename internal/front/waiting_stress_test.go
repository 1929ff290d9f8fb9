package front

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowWaits is a Plain whose calls take long now and then, so that the deputy takes over, and whose
// waits end at random moments, also twice at once: by themselves and because the client leaves.
type slowWaits struct {
	t      *testing.T
	active atomic.Int64 // exchanges that Start has begun with and that are not decided
}

// slowWait is what slowWaits knows about an exchange. Only one of those who end a wait calls Done.
type slowWait struct {
	path   string
	rounds int
	mu     sync.Mutex // guards waits and timer
	waits  bool
	timer  *time.Timer
}

func (s *slowWaits) dawdle() {
	if rand.IntN(40) == 0 {
		<-time.After(3 * lateAfter / 2) // what is slow, so that the deputy takes over
	}
}

func (s *slowWaits) wait(x *Exchange, w *slowWait) {
	w.mu.Lock()
	w.waits = true
	w.timer = time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, func() { w.end(x) })
	w.mu.Unlock()
	s.dawdle()
}

func (w *slowWait) end(x *Exchange) {
	w.mu.Lock()
	ends := w.waits
	w.waits = false
	w.mu.Unlock()
	if ends {
		x.Done()
	}
}

func (s *slowWaits) Start(x *Exchange) Verdict {
	s.dawdle()
	path := x.Request.URL.Path
	isPost := x.Request.Method == "POST"
	if x.Behind && !isPost {
		return Later
	}
	w := &slowWait{path: path, rounds: rand.IntN(3)}
	x.State = w
	switch {
	case strings.HasPrefix(path, "/odd"):
		return Odd
	case isPost:
		s.active.Add(1)
		x.Keep = rand.IntN(2) == 0
		return Pending
	case strings.HasPrefix(path, "/wait"):
		s.active.Add(1)
		s.wait(x, w)
		return Waiting
	}
	say(x, path)
	return Answered
}

func (s *slowWaits) Submit(xs []*Exchange, _ bool) {
	s.dawdle()
	for _, x := range xs {
		s.wait(x, x.State.(*slowWait))
	}
}

func (s *slowWaits) check(x *Exchange) *slowWait {
	w := x.State.(*slowWait)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits {
		s.t.Error("a call that waits was decided")
	}
	if p := x.Request.URL.Path; p != w.path {
		s.t.Errorf("the call %s ended that of %s", w.path, p)
	}
	return w
}

func (s *slowWaits) Finish(x *Exchange) Verdict {
	w := s.check(x)
	s.active.Add(-1)
	switch {
	case x.Keep && x.Gone:
		return Aborted
	case x.Keep && rand.IntN(4) == 0:
		return Odd
	}
	say(x, w.path)
	return Answered
}

func (s *slowWaits) Resume(x *Exchange) Verdict {
	w := s.check(x)
	s.dawdle()
	if w.rounds--; !x.Gone && w.rounds > 0 {
		s.wait(x, w)
		return Waiting
	}
	s.active.Add(-1)
	switch {
	case x.Gone:
		return Aborted
	case rand.IntN(4) == 0:
		return Odd
	}
	say(x, w.path)
	return Answered
}

func (s *slowWaits) Leave(x *Exchange) { x.State.(*slowWait).end(x) }

// TestWaitsThatEndAtRandom has clients wait and hang up at random moments. Each answer has to be the
// one to its request, and nothing may be left.
func TestWaitsThatEndAtRandom(t *testing.T) {
	const clients, rounds = 20, 30
	s := &slowWaits{t: t}
	r := newLoopsRig(t, s, 100, 2, nil)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for round := range rounds {
				if err := s.talk(r, fmt.Sprintf("%d-%d", i, round)); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.l.EndLoops(20 * time.Second) // waits for the calls of clients that have gone
	if n := s.active.Load(); n != 0 {
		t.Errorf("%d calls were never decided", n)
	}
	for _, p := range r.l.loops {
		if p.open != 0 {
			t.Errorf("a loop ends with %d open exchanges", p.open)
		}
	}
}

// talk sends some requests on a new connection. It hangs up, or reads all answers.
func (s *slowWaits) talk(r *loopRig, name string) error {
	c := r.dial()
	defer c.Close()
	var paths []string
	var requests strings.Builder
	for j := range 1 + rand.IntN(5) {
		method, kind := "GET", [...]string{"/now", "/wait", "/wait", "/post", "/odd"}[rand.IntN(5)]
		if kind == "/post" {
			method = "POST"
		}
		path := fmt.Sprintf("%s/%s-%d", kind, name, j)
		requests.WriteString(ask(method, path))
		paths = append(paths, path)
	}
	if _, err := io.WriteString(c, requests.String()); err != nil {
		return err
	}
	<-time.After(time.Duration(rand.IntN(1500)) * time.Microsecond) // a random moment
	switch rand.IntN(6) {
	case 0:
		return nil
	case 1:
		return c.SetLinger(0)
	case 2:
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, c) // it may be reset
		return nil
	}
	b := bufio.NewReader(c)
	for _, path := range paths {
		a, err := http.ReadResponse(b, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		body, err := io.ReadAll(a.Body)
		if err != nil || !strings.Contains(string(body), path) {
			return fmt.Errorf("%s was answered %q, %w", path, body, err)
		}
	}
	return nil
}
