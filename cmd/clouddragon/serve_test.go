package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnsweredWritesSurviveStopAndKill(t *testing.T) {
	t.Parallel()
	config := small(t, "listen: 127.0.0.1:0\n")
	p := start(t, config)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	p.stop()
	p = start(t, config)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "2\n")
	p.signal(syscall.SIGKILL)
	p.exit()
	p = start(t, config)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "3\n")
	want(t, http.DefaultClient, "GET", "http://"+p.addr+"/healthz", 200, "ok\n")
	_, text := ask(t, http.DefaultClient, "GET", "http://"+p.addr+"/metrics")
	for _, line := range []string{
		`clouddragon_requests_total{api="sequence",code="200",method="POST"} 1`,
		`clouddragon_commits_total 1`,
		`clouddragon_slots_used{class="64"} 1`,
		`clouddragon_locks_held{api="lock"} 0`,
		`clouddragon_writes_stopped 0`,
		`clouddragon_names_rebuilding 0`,
		`clouddragon_watchers 0`,
		`clouddragon_watchers_limit 100000`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("/metrics has no line %q", line)
		}
	}
	p.stop()
}

func TestSecondServerSaysWhoHasTheData(t *testing.T) {
	t.Parallel()
	config := small(t, "listen: 127.0.0.1:0\n")
	first := start(t, config)
	second := launch(t, config)
	if code := second.exit(); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if who := fmt.Sprintf("pid %d,", first.cmd.Process.Pid); !strings.Contains(second.log, who) {
		t.Errorf("the message does not say %q:\n%s", who, second.log)
	}
	first.stop()
}

func TestPortInUseIsAFailureToStart(t *testing.T) {
	t.Parallel()
	first := start(t, small(t, "listen: 127.0.0.1:0\n"))
	second := launch(t, small(t, "listen: "+first.addr+"\n"))
	if code := second.exit(); code != 1 || !strings.Contains(second.log, first.addr) {
		t.Errorf("exit %d, want 1 and a message that names %s; it said:\n%s", code, first.addr, second.log)
	}
}

// TestExitCodes runs commands that end by themselves.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	bad := write("bad.yml", "listen: 127.0.0.1:0\ndata: d\nlimts: {}\n")
	pem := write("x.pem", "no certificate\n")
	badTLS := write("tls.yml", fmt.Sprintf("data: d\ntls: {cert: %s, key: %s}\n", pem, pem))
	noTLS := write("notls.yml", "data: d\ntls: {cert: /nowhere/c.pem, key: k.pem}\n")
	open := write("open.yml", "listen: 0.0.0.0:0\n")
	noTokens := write("notokens.yml", "listen: 0.0.0.0:0\ntokens_file: /nowhere/tokens.yml\n")
	badData := write("data.yml", "listen: 127.0.0.1:0\ndata: "+bad+"\n")
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"-h"}, 0, "usage: clouddragon [-config FILE]", ""},
		{[]string{"-help"}, 0, "CLOUDDRAGON_TOKEN", ""},
		{[]string{"--help"}, 0, "78  a bad configuration", ""},
		{[]string{"-version"}, 0, "clouddragon 1.2.3-test go1.", ""},
		{[]string{"-verbose"}, 64, "", "-verbose"},
		{[]string{"serve"}, 64, "", `unknown command "serve"`},
		{[]string{"-config"}, 64, "", "-config"},
		{nil, 78, "", "config.yml: no such file"}, // dir has none
		{[]string{"-config", "nowhere.yml"}, 78, "", "nowhere.yml: no such file"},
		{[]string{"-config", dir}, 78, "", dir},
		{[]string{"-config", bad}, 78, "", bad + ":3: unknown key \"limts\""},
		{[]string{"-config", badTLS}, 78, "", pem},
		{[]string{"-config", noTLS}, 78, "", "/nowhere/c.pem"},
		{[]string{"-config", badData}, 1, "", "bad.yml"},
		{[]string{"verify"}, 64, "", "want one data directory, got 0"},
		{[]string{"verify", "a", "b"}, 64, "", "want one data directory, got 2"},
		{[]string{"verify", "-data", "a", "b"}, 64, "", "want one data directory, got 2"},
		{[]string{"verify", "-config", bad}, 64, "", "-config"},
		{[]string{"verify", "-h"}, 0, "usage: clouddragon", ""},
		{[]string{"verify", "-data", filepath.Join(dir, "nowhere")}, 1, "", "nowhere: no such file or directory"},
		{[]string{"verify", filepath.Join(dir, "nowhere")}, 1, "", "nowhere: no such file or directory"},
		{[]string{"verify", bad}, 1, "", "bad.yml is a file"},
		{[]string{"-config", open}, 78, "", "no token is set"},
		{[]string{"-config", noTokens}, 78, "", noTokens + ":2: tokens_file: open /nowhere/tokens.yml"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, c.args...)
			cmd.Dir = dir
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run() // the exit code is looked at below
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			if !strings.Contains(stdout.String(), c.stdout) || c.stdout == "" && stdout.Len() > 0 {
				t.Errorf("stdout %q, want %q in it", stdout.String(), c.stdout)
			}
			if !strings.Contains(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr %q, want %q in it", stderr.String(), c.stderr)
			}
		})
	}
}

// slowClient sends the head of a request and half of its body, and returns
// once the handler reads the body.
func slowClient(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
	if _, err := io.WriteString(c, "PUT /db/1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v; want the server to ask for the body", line, err)
	}
	return c
}

func TestDrainAnswersWaitersAndDoesNotWaitForSlowClients(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	url := "http://" + p.addr
	if status, body := ask(t, http.DefaultClient, "POST", url+"/db/1/mlock/m"); status != 200 {
		t.Fatalf("mlock: %d %q", status, body)
	}
	want(t, http.DefaultClient, "POST", url+"/db/1/lock/l?id=a", 200, "2\n")
	answers := make(chan string, 2)
	for _, path := range []string{"/db/1/mlock/m?wait=600", "/db/1/lock/l?id=b&wait=600"} {
		go func() {
			res, err := http.Post(url+path, "", nil)
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- res.Status + " " + res.Header.Get("Retry-After")
			_ = res.Body.Close()
		}()
	}
	waitForMetric(t, url, `clouddragon_lock_waiters{api="mlock"} 1`)
	waitForMetric(t, url, `clouddragon_lock_waiters{api="lock"} 1`)
	slowClient(t, p.addr)

	began := time.Now()
	p.signal(syscall.SIGTERM)
	for range 2 {
		if a := <-answers; a != "503 Service Unavailable 1" {
			t.Errorf("a waiter got %q, want 503 with Retry-After", a)
		}
	}
	if took := time.Since(began); took >= drainTime {
		t.Errorf("the waiters were answered after %v, with the slow client", took)
	}
	if c, err := net.Dial("tcp", p.addr); err == nil {
		t.Error("a new connection is accepted while it drains")
		_ = c.Close()
	}
	// The contract says 10 s. The rest of patience is for a busy machine.
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d, want 0; it said:\n%s", code, p.log)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	slowClient(t, p.addr)
	p.signal(syscall.SIGINT)
	p.line("stopping")
	// Any signal that comes a second or more after the first one ends the server at once.
	again, enough := time.NewTicker(10*time.Millisecond), make(chan struct{})
	defer again.Stop()
	go func() {
		for {
			select {
			case <-again.C:
				_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			case <-enough:
				return
			}
		}
	}()
	code := p.exit()
	close(enough)
	if code != 1 || !strings.Contains(p.log, "stopped at once") {
		t.Errorf("exit %d, want 1 without waiting for the slow client; it said:\n%s", code, p.log)
	}
}

func TestTwoSignalsAtOnceAreOneStop(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	slowClient(t, p.addr)
	// Two signals of the same kind may reach a process as one.
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d, want 0; it said:\n%s", code, p.log)
	}
}

// waitForMetric scrapes /metrics until it has the line.
func waitForMetric(t *testing.T, url, line string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, text := ask(t, http.DefaultClient, "GET", url+"/metrics"); strings.Contains(text, "\n"+line+"\n") {
			return
		}
	}
	t.Fatalf("/metrics never had the line %s", line)
}

func TestTokensAllowOnlyTheirAccounts(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\ntoken: file\ntokens: [{token: reader, accounts: [1], readonly: true}]\n"), "CLOUDDRAGON_TOKEN=env")
	for _, c := range []struct {
		token, method, path string
		status              int
	}{
		{"", "GET", "/healthz", 200},
		{"", "POST", "/db/1/sequence/a", 401},
		{"", "GET", "/metrics", 401},
		{"file", "POST", "/db/1/sequence/a", 401},
		{"env", "POST", "/db/1/sequence/a", 200},
		{"env", "GET", "/metrics", 200},
		{"reader", "GET", "/db/1/sequence/a", 200},
		{"reader", "POST", "/db/1/sequence/a", 403},
		{"reader", "GET", "/db/2/sequence/a", 403},
	} {
		url := "http://" + p.addr + c.path
		if c.token != "" {
			url = "http://:" + c.token + "@" + p.addr + c.path
		}
		if status, body := ask(t, http.DefaultClient, c.method, url); status != c.status {
			t.Errorf("%s %s with the token %q: got %d %q, want %d", c.method, c.path, c.token, status, body, c.status)
		}
	}
}
