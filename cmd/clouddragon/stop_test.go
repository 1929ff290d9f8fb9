package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe returns both ends of a small pipe.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(r.Close(), w.Close()) }) // the test may have closed them
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// loud is a configuration with a fault that has a long message.
func loud() string { return strings.Repeat("x", 50<<10) + ": 1\n" }

// waitForExit waits for a process whose log is not followed.
func (p *process) waitForExit() int {
	p.t.Helper()
	timeout := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }) // it may have ended
	_ = p.cmd.Wait()                                                         // the exit code says it
	if !timeout.Stop() {
		p.t.Errorf("the process did not end within %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

func TestServerOutlivesTheReaderOfItsLog(t *testing.T) {
	t.Parallel()
	p := prepare(t, small(t, "listen: 127.0.0.1:0\n"))
	r, w := pipe(t)
	p.cmd.Stderr = w
	p.run()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	addr := ""
	for lines := bufio.NewReader(r); addr == ""; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(line, "addr=")
		addr, _, _ = strings.Cut(rest, " ")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	waitForMetric(t, "http://"+addr, "clouddragon_log_lines_dropped_total 1")
	want(t, http.DefaultClient, "POST", "http://"+addr+"/db/1/sequence/a", 200, "1\n")
	p.signal(syscall.SIGTERM)
	if code := p.waitForExit(); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
}

// TestReaderThatDoesNotReadHoldsNothingUp fills the log's pipe and the queue before it.
func TestReaderThatDoesNotReadHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for _, reads := range []bool{true, false} {
		socket := socketPath(t)
		p := prepare(t, small(t, "listen: unix:"+socket+"\n"))
		r, w := pipe(t)
		p.cmd.Stderr = w
		p.run()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		client := socketClient(t, socket)
		awaitAnswer(t, client)
		p.configure(loud())
		for end := time.Now().Add(patience); ; {
			p.signal(syscall.SIGHUP)
			if _, text := ask(t, client, "GET", "http://socket/metrics"); !strings.Contains(text, "\nclouddragon_log_lines_dropped_total 0\n") {
				break
			}
			if time.Now().After(end) {
				t.Fatal("no line is dropped")
			}
		}
		if reads {
			p.follow(r)
			p.line("log lines were dropped")
		}
		p.signal(syscall.SIGTERM)
		if code := p.waitForExit(); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	}
}

// awaitAnswer sends requests until one is answered.
func awaitAnswer(t *testing.T, c *http.Client) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		res, err := c.Get("http://socket/healthz")
		if err == nil {
			_ = res.Body.Close() // its content does not matter
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it does not serve: %v", err)
		}
	}
}

// TestStopTellsBusyClients stops a server while clients send one request after the other, each
// on its own connection. Every client has to get an answer that ends its connection, and none
// a reset. A client that the machine held up for lingerTime is not busy: its connection may end.
func TestStopTellsBusyClients(t *testing.T) {
	t.Parallel()
	config := small(t, "listen: 127.0.0.1:0\n")
	for range 5 {
		p := start(t, config)
		busy := make(chan bool, 4)
		var clients sync.WaitGroup
		for i := range cap(busy) {
			clients.Go(func() {
				c, err := net.Dial("tcp", p.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience)) // a failure is noticed below
				b := bufio.NewReader(c)
				before := time.Now()                           // when the request before was sent
				pause := time.NewTicker(50 * time.Millisecond) // between the requests of some
				defer pause.Stop()
				for n := 0; ; n++ {
					if n == 20 {
						busy <- true
					}
					if n >= 20 && i >= 2 {
						<-pause.C // so the stop finds it without a request
					}
					sent := time.Now()
					method := []string{"GET /db/1/sequence/a", "POST /db/1/sequence/a"}[i%2]
					if _, err := io.WriteString(c, method+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"); err != nil {
						if time.Since(before) < lingerTime {
							t.Errorf("request %d: %v", n, err)
						}
						return
					}
					res, err := http.ReadResponse(b, nil)
					if err != nil {
						if time.Since(before) < lingerTime {
							t.Errorf("request %d got no answer: %v", n, err)
						}
						return
					}
					before = sent
					_, _ = io.Copy(io.Discard, res.Body) // a fault is noticed in the next request
					if res.Close {
						return
					}
				}
			})
		}
		for range cap(busy) {
			<-busy
		}
		p.stop()
		clients.Wait()
	}
}

func TestLinesThatStrangersCauseAreFew(t *testing.T) {
	log := &logLines{lines: make(chan string, 1000)}
	h := newRare(slog.NewTextHandler(log, nil))
	at := time.Unix(1e9, 0)
	say := func(n int) int {
		for range n {
			if err := h.Handle(context.Background(), slog.NewRecord(at, slog.LevelWarn, "TLS handshake error", 0)); err != nil {
				t.Fatal(err)
			}
		}
		return len(log.lines)
	}
	if n := say(100); n != rareLines {
		t.Errorf("%d lines of 100 in a minute, want %d", n, rareLines)
	}
	at = at.Add(rarePeriod)
	if n := say(1); n != rareLines+1 {
		t.Errorf("%d lines, want one more", n)
	}
	for range rareLines {
		<-log.lines
	}
	if line := <-log.lines; !strings.Contains(line, "left_out=90") {
		t.Errorf("got %q, want how many lines were left out", line)
	}
}
