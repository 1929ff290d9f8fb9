package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestLockIsRenewedUntilTheCommandEnds(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	s, in := beginLock(t, f.url, "-dur", "9", "-kill-after", "100ms", "n", "sh", "-c", "echo begun; read x; exit 7")
	f.renewed(t, 4) // longer than the lock lasts
	if code, body := ask(t, http.DefaultClient, "GET", lockURL(p, "n")); code != http.StatusOK || !strings.Contains(body, `"token":1,`) {
		t.Errorf("while the command runs: %d %s", code, body)
	}
	closeInput(t, in)
	s.endsQuietly(7)
	free(t, p, "n")
	p.stop()
}

// A renewal is tried again after anything but a 409.
func TestLockIsRenewedDespiteFaults(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	var n atomic.Int32
	f.on(func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "renew" {
			return false
		}
		switch n.Add(1) {
		case 1:
			return reset(w)
		case 2:
			return half(w)
		case 3:
			http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
		case 4:
			http.Error(w, "<html>", http.StatusBadGateway)
		case 5:
			http.Error(w, "no token is sent", http.StatusUnauthorized)
		case 6:
			http.NotFound(w, r)
		case 7:
			f.hang(r)
		default:
			return false
		}
		return true
	})
	s, in := beginLock(t, f.url, "-dur", "18", "-kill-after", "100ms", "n", "sh", "-c", "echo begun; read x; exit 7")
	f.renewed(t, 8) // all but the one that hangs, and one more
	closeInput(t, in)
	s.endsQuietly(7)
	free(t, p, "n")
	p.stop()
}

func TestLockThatIsLostEndsTheCommand(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	var lost atomic.Int32 // renewals that were answered with 409
	f.on(func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "renew" {
			return false
		}
		answer := httptest.NewRecorder()
		f.next.ServeHTTP(answer, r)
		if answer.Code == http.StatusConflict {
			lost.Add(1)
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the client may be gone
		return true
	})
	s, _ := beginLock(t, f.url, "-dur", "15", "-kill-after", "4s", "n", "sh", "-c", "trap 'echo stopped; exit 0' TERM; echo begun; while :; do read x; done")
	force(t, p, "n")
	s.says("stopped")
	s.complains(75, `the lock "n" is lost, and the command is ended: `)
	if n := lost.Load(); n != 1 {
		t.Errorf("a lost lock is asked for %d times, want once", n)
	}

	// A command that ignores TERM, and children that outlive it, get KILL: all of them close
	// stdout.
	s = lockCommand(t, "http://"+p.addr, "-dur", "9", "-kill-after", "100ms", "n", "sh", "-c",
		"sh -c \"trap '' TERM; echo child; while :; do sleep 1000; done\" & read x; trap 'exit 0' TERM; echo begun; wait")
	in := s.input()
	s.begin()
	s.says("child")
	closeInput(t, in)
	s.says("begun")
	force(t, p, "n")
	s.complains(75, `the lock "n" is lost`)
	p.stop()
}

// If the server does not answer, the command ends before its lock does.
func TestLockEndsTheCommandBeforeTheLock(t *testing.T) {
	t.Parallel()
	for name, trap := range map[string]string{"TERM": "exit 0", "KILL": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, small(t, "listen: 127.0.0.1:0\n"))
			f := newFaulty(t, p.addr)
			f.on(func(_ http.ResponseWriter, r *http.Request, kind string) bool { return kind == "renew" && f.hang(r) })
			s, _ := beginLock(t, f.url, "-dur", "30", "-kill-after", "500ms", "n", "sh", "-c", "trap '"+trap+"' TERM; echo begun; while :; do read x || sleep 1000; done")
			if s.lines.Scan() {
				t.Errorf("%s: the command says %q", name, s.lines.Text())
			}
			if code, body := ask(t, http.DefaultClient, "GET", lockURL(p, "n")); code != http.StatusOK {
				t.Errorf("%s: the lock has ended before the command: %d %s", name, code, body)
			}
			s.complains(75, "it took too long")
			p.stop()
		})
	}
}

func TestLockThatIsGrantedTooLateRunsNothing(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	f.on(func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "take" {
			return false
		}
		answer := httptest.NewRecorder()
		f.next.ServeHTTP(answer, r)
		// Somebody else waits until the lock has ended.
		if code, body := ask(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other&wait=60&dur=60"); code != http.StatusOK {
			t.Errorf("the other gets %d %s", code, body)
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the client may be gone
		return true
	})
	s := runLock(t, f.url, "-dur", "2", "-wait", "30", "n", "echo", "run")
	s.complains(75, "too late")
	p.stop()
}

// The lock is forced away and taken by another, long before it is renewed.
func TestLockThatWasLostUnnoticedIs75(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	s, in := beginLock(t, "http://"+p.addr, "n", "sh", "-c", "echo begun; read x; exit 0")
	force(t, p, "n")
	want(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other", http.StatusOK, "2\n")
	closeInput(t, in)
	s.complains(75, "was lost before the unlock")
	p.stop()
}

func TestLockIsGivenBackDespiteFaults(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	var n atomic.Int32
	f.on(func(w http.ResponseWriter, _ *http.Request, kind string) bool {
		return kind == "give" && n.Add(1) <= 2 && reset(w)
	})
	runLock(t, f.url, "n", "sh", "-c", "exit 3").endsQuietly(3)
	free(t, p, "n")

	// A lock that could not be given back within a few seconds expires by itself.
	f.on(func(_ http.ResponseWriter, r *http.Request, kind string) bool { return kind == "give" && f.hang(r) })
	runLock(t, f.url, "n", "sh", "-c", "exit 3").complains(3, "it stays locked until it expires")
	p.stop()
}

// If the answer gets lost, the request is repeated with the same id. If there is no answer at
// all, a lock that may have been granted is given back.
func TestLockIsTakenDespiteFaults(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	var n atomic.Int32
	f.on(func(w http.ResponseWriter, r *http.Request, kind string) bool {
		if kind != "take" || n.Add(1) > 1 {
			return false
		}
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		return half(w)
	})
	runLock(t, f.url, "n", "sh", "-c", "exit 3").endsQuietly(3)
	free(t, p, "n")

	f.on(func(_ http.ResponseWriter, r *http.Request, kind string) bool {
		if kind == "take" {
			f.next.ServeHTTP(httptest.NewRecorder(), r)
			f.hang(r)
		}
		return false
	})
	runLock(t, f.url, "-dur", "6", "n", "echo", "run").complains(69, "it took too long")
	free(t, p, "n")
	p.stop()
}

func TestLockWaitsInTheQueue(t *testing.T) {
	t.Parallel()
	p := start(t, strings.Replace(small(t, "listen: 127.0.0.1:0\n"), "limits: {", "limits: {wait: 500ms, ", 1))
	f := newFaulty(t, p.addr)
	want(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other&dur=600", http.StatusOK, "1\n")
	s := runLock(t, f.url, "-wait", "1h", "n", "sh", "-c", "exit 3")
	for len(f.asked()) < 4 { // after limits.wait it asks again
		p.waits("lock", 1)
	}
	want(t, http.DefaultClient, "DELETE", lockURL(p, "n")+"?id=other", http.StatusNoContent, "")
	s.endsQuietly(3)

	// A command that is ended while it waits leaves the queue.
	want(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other&dur=600", http.StatusOK, "3\n")
	s = runLock(t, f.url, "-wait", "1h", "n", "echo", "run")
	p.waits("lock", 1)
	s.send(syscall.SIGTERM)
	s.endsQuietly(128 + 15)
	p.waits("lock", 0)
	p.stop()
}

func TestLockSurvivesAStop(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	s, in := beginLock(t, f.url, "-dur", "9", "-kill-after", "100ms", "n", "sh", "-c", "echo begun; read x; exit 3")
	s.send(syscall.SIGTSTP)
	s.stops() // and so does the command
	f.renewed(t, 4)
	s.send(syscall.SIGCONT)
	closeInput(t, in)
	s.endsQuietly(3)
	free(t, p, "n")
	p.stop()
}

// killedCommand prints once that it stops, because TERM may come several times. Its child
// ignores TERM and keeps stdout open.
const killedCommand = "sh -c \"trap '' TERM; echo child; exec sleep 1000\" & trap 'trap \"\" TERM; echo stopped; exit' TERM; read x; echo begun; while :; do read x || sleep 0.01; done"

func TestLockWhoseFrontIsKilledEndsTheCommand(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	s := lockCommand(t, "http://"+p.addr, "-dur", "15", "n", "sh", "-c", killedCommand)
	in := s.input()
	s.begin()
	s.says("child")
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Error(err)
	}
	s.says("begun")
	s.send(syscall.SIGKILL)
	s.says("stopped")
	s.endsQuietly(-1) // all have closed stdout
	if code, body := ask(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other&wait=20"); code != http.StatusOK {
		t.Errorf("the lock is still renewed: %d %s", code, body)
	}
	p.stop()
}

func TestLockWhoseKeeperIsKilledEndsTheCommand(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		s := lockCommand(t, "http://"+p.addr, "-dur", "15", "-kill-after", "4s", "n"+strconv.Itoa(int(sig)), "sh", "-c", killedCommand)
		in := s.input()
		s.begin()
		s.says("child")
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Error(err)
		}
		s.says("begun")
		if err := syscall.Kill(s.keeper(), sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGKILL {
			s.says("stopped")
			s.complains(75, "was killed, and the command is ended")
			continue
		}
		for s.lines.Scan() { // it may not have the time to print that it stops
		}
		s.complains(75, "was killed, and the command is ended")
	}
	p.stop()
}
