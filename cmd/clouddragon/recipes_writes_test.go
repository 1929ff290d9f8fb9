package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// losesAnswers is a proxy that passes on every third answer of the server. The others are lost
// after the server has given them.
func losesAnswers(t *testing.T, server string) (addr string, lost *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lost = new(atomic.Int64)
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			client, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			passes := n%3 == 2
			all.Go(func() {
				defer client.Close()
				behind, err := net.Dial("tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				defer behind.Close()
				go func() {
					_, _ = io.Copy(behind, client) // until one of them is closed
				}()
				answer := make([]byte, 4096)
				got, err := behind.Read(answer)
				if err != nil {
					t.Error(err)
					return
				}
				if !passes {
					lost.Add(1)
					return
				}
				_, _ = client.Write(answer[:got]) // curl says if it did not arrive
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	return l.Addr().String(), lost
}

func TestRecipeCountCountsEachFileOnceThoughAnswersAreLost(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "count.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	addr, lost := losesAnswers(t, p.addr)
	s := newScript(t, p, dir, "count.sh", "mails", "a", "b", "c", "d")
	s.Env = append(s.Env, "SERVER="+addr, "DELAY=0")
	s.begin()
	for _, line := range []string{"1 a", "2 b", "3 c", "4 d"} {
		s.says(line)
	}
	s.endsQuietly(0)
	want(t, http.DefaultClient, "GET", "http://"+p.addr+"/db/jobs/counter/mails", http.StatusOK, "4\n")
	if lost.Load() != 8 {
		t.Errorf("%d answers were lost, want 8", lost.Load())
	}
	p.stop()
}

func TestRecipeWindowRunsSoOften(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "window.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	run := func(code int) *script {
		t.Helper()
		s := newScript(t, p, dir, "window.sh", "alerts", "2", "echo", "sent")
		s.Env = append(s.Env, "WINDOW=9h")
		s.begin()
		if code == 0 {
			s.says("sent")
		}
		s.ends(code)
		return s
	}
	run(0)
	run(0)
	if s := run(75); !strings.Contains(s.stderr.String(), "over max=2") {
		t.Errorf("the third says %q", s.stderr.String())
	}
	counter := "http://" + p.addr + "/db/jobs/counter/alerts"
	want(t, http.DefaultClient, "POST", counter+"?add=0&ttl=0.001&touch=true", http.StatusOK, "2\n")
	// Wait until the millisecond is over.
	for code := http.StatusOK; code != http.StatusNotFound; code, _ = ask(t, http.DefaultClient, "GET", counter) {
	}
	run(0)
	p.stop()
}

func TestRecipePaceWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "pace.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	run := func(wait string) *script {
		t.Helper()
		s := newScript(t, p, dir, "pace.sh", "mail", "1", "1h", "echo", "sent")
		s.Env = append(s.Env, "WAIT="+wait)
		s.begin()
		return s
	}
	first := run("0")
	first.says("sent")
	first.endsQuietly(0)
	refused := run("9m")
	refused.ends(75)
	if !strings.Contains(refused.stderr.String(), "not run: ") {
		t.Errorf("the second says %q", refused.stderr.String())
	}
	rate := "http://" + p.addr + "/db/jobs/rate/mail"
	want(t, http.DefaultClient, "DELETE", rate, http.StatusNoContent, "")
	// The next turn comes in 5 minutes, which is not more than WAIT.
	want(t, http.DefaultClient, "POST", rate+"?limit=12&per=1h&burst=1", http.StatusOK, "0\n")
	waits := run("9m")
	waitForMetric(t, "http://"+p.addr, "clouddragon_rate_waiters 1")
	want(t, http.DefaultClient, "DELETE", rate, http.StatusNoContent, "")
	waits.says("sent")
	waits.endsQuietly(0)
	p.stop()
}

func TestRecipeReportIsOnlyOfTheHolder(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "report.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	value, lock := "http://"+p.addr+"/db/reports/kv/daily", "http://"+p.addr+"/db/reports/lock/daily"
	runScript(t, p, dir, "report.sh", "daily", "echo", "first").endsQuietly(0)
	want(t, http.DefaultClient, "GET", value, http.StatusOK, "first\n")
	want(t, http.DefaultClient, "GET", lock, http.StatusNotFound, "lock \"daily\" of account \"reports\" is not locked\n")

	for _, name := range []string{"begun", "hold"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slow := runScript(t, p, dir, "report.sh", "daily", "bash", "-c", "echo >begun; cat hold; echo late")
	if _, err := os.ReadFile(filepath.Join(dir, "begun")); err != nil {
		t.Fatal(err)
	}
	// For the server, the lock has expired, and another run takes it.
	want(t, http.DefaultClient, "DELETE", lock+"?force=true", http.StatusNoContent, "")
	runScript(t, p, dir, "report.sh", "daily", "echo", "second").endsQuietly(0)
	if err := os.WriteFile(filepath.Join(dir, "hold"), nil, 0); err != nil {
		t.Fatal(err)
	}
	slow.ends(75)
	if !strings.Contains(slow.stderr.String(), "not stored: token") {
		t.Errorf("the run that was overtaken says %q", slow.stderr.String())
	}
	want(t, http.DefaultClient, "GET", value, http.StatusOK, "second\n")
	p.stop()
}
