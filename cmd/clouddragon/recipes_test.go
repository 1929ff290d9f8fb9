package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var recipe = regexp.MustCompile("(?s)```bash\n(#!.*?\n# ([a-z]+\\.sh) .*?)```")

// documents returns the text of the README and of docs, from which the tests take
// scripts, clients and configurations.
func documents(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, name := range append([]string{"../../README.md"}, names...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}

// recipes writes the scripts in the documents to files and returns their directory.
func recipes(t *testing.T, want ...string) string {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "flock"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := t.TempDir()
	for _, m := range recipe.FindAllStringSubmatch(documents(t), -1) {
		if err := os.WriteFile(filepath.Join(dir, m[2]), []byte(m[1]), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("neither README.md nor docs has a recipe %s: %v", name, err)
		}
	}
	return dir
}

// script is a running recipe.
type script struct {
	*exec.Cmd
	t      *testing.T
	lines  *bufio.Scanner
	stderr bytes.Buffer
}

func runScript(t *testing.T, p *process, dir, name string, args ...string) *script {
	t.Helper()
	s := newScript(t, p, dir, name, args...)
	s.begin()
	return s
}

func newScript(t *testing.T, p *process, dir, name string, args ...string) *script {
	t.Helper()
	s := &script{Cmd: exec.Command("bash", append([]string{name}, args...)...), t: t}
	s.Dir = dir
	s.Env = append(os.Environ(), "no_proxy=*", "SERVER="+p.addr, "DUR=9")
	s.Stderr = &s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := out.(*os.File); ok { // a script or a job that hangs is a failure
		if err := f.SetReadDeadline(time.Now().Add(6 * patience)); err != nil {
			t.Fatal(err)
		}
	}
	s.lines = bufio.NewScanner(out)
	return s
}

func (s *script) begin() {
	s.t.Helper()
	if err := s.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// says waits for the script's next line.
func (s *script) says(want string) {
	s.t.Helper()
	if !s.lines.Scan() || s.lines.Text() != want {
		s.t.Errorf("%v says %q (%v, %s), want %q", s.Args, s.lines.Text(), s.lines.Err(), s.stderr.String(), want)
	}
}

// line returns the next line that the script prints.
func (s *script) line() string {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatalf("%v says no more (%v, %s)", s.Args, s.lines.Err(), s.stderr.String())
	}
	return s.lines.Text()
}

// endsQuietly waits for the script's end and checks that stderr is empty.
func (s *script) endsQuietly(code int) {
	s.t.Helper()
	s.ends(code)
	if s.stderr.Len() > 0 {
		s.t.Errorf("%v prints on stderr: %s", s.Args, s.stderr.String())
	}
}

// ends waits for the script's end.
func (s *script) ends(code int) {
	s.t.Helper()
	for s.lines.Scan() {
		s.t.Errorf("%v says %q too", s.Args, s.lines.Text())
	}
	if err := s.lines.Err(); err != nil { // some process still has stdout open
		s.t.Errorf("%v: %v", s.Args, err)
		_ = s.Process.Kill() // so that Wait returns; it may have ended by itself
	}
	if err := s.Wait(); s.ProcessState.ExitCode() != code {
		s.t.Errorf("%v: %v, %s, want exit code %d", s.Args, err, s.stderr.String(), code)
	}
}

func TestRecipeOnceRunsAJobOnceAndKeepsItsLock(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "once.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	lock := "http://" + p.addr + "/db/cron/lock/nightly"

	// The job runs until its input tells it to end, which is longer than the lock lasts.
	hold := filepath.Join(dir, "hold")
	if err := syscall.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	first := runScript(t, p, dir, "once.sh", "nightly", "bash", "-c", "echo begun; cat hold; exit 7")
	first.says("begun")
	second := runScript(t, p, dir, "once.sh", "nightly", "echo", "twice")
	second.ends(75)
	if !strings.Contains(second.stderr.String(), "not run: lock \"nightly\" is held") {
		t.Errorf("the second says %q", second.stderr.String())
	}
	// The lock is renewed: a call that waits longer than the lock lasts does not get it.
	if code, body := ask(t, http.DefaultClient, "POST", lock+"?id=other&wait=11"); code != http.StatusConflict {
		t.Errorf("while the job runs another gets its lock: %d %s", code, body)
	}
	end, err := os.OpenFile(hold, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	first.endsQuietly(7)
	want(t, http.DefaultClient, "GET", lock, http.StatusNotFound, "lock \"nightly\" of account \"cron\" is not locked\n")

	// A script that is killed ends the job and gives the lock back.
	third := runScript(t, p, dir, "once.sh", "nightly", "bash", "-c", "echo begun; cat hold")
	third.says("begun")
	if err := third.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	third.endsQuietly(-1)
	want(t, http.DefaultClient, "GET", lock, http.StatusNotFound, "lock \"nightly\" of account \"cron\" is not locked\n")

	// Once another caller has the lock, the job is stopped.
	fourth := runScript(t, p, dir, "once.sh", "nightly", "bash", "-c", "echo begun; cat hold")
	fourth.says("begun")
	want(t, http.DefaultClient, "DELETE", lock+"?force=true", http.StatusNoContent, "")
	fourth.endsQuietly(143)

	// Even a script that is killed with SIGKILL ends the job and stops renewing.
	fifth := runScript(t, p, dir, "once.sh", "nightly", "bash", "-c", "trap 'echo stopped; exit' TERM; echo begun; while :; do read <hold; done")
	fifth.says("begun")
	if err := fifth.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	fifth.says("stopped")
	fifth.ends(-1)
	if code, body := ask(t, http.DefaultClient, "POST", lock+"?id=other&wait=20"); code != http.StatusOK {
		t.Errorf("the lock of a script that was killed is still renewed: %d %s", code, body)
	}
	p.stop()

	for _, dur := range []string{"60s", "5", "1e3", "-7"} {
		s := newScript(t, p, dir, "once.sh", "nightly", "echo", "run")
		s.Env = append(s.Env, "DUR="+dur)
		s.begin()
		s.ends(64)
	}
}

// A job continues if its server is down for less time than its lock lasts.
func TestRecipeOnceOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "once.sh")
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	// An address whose port no other process gets, so that the second server can have it too.
	config := small(t, "listen: 127.66.0.1:0\n")
	p := start(t, config)
	// The test is told when a renewal begins.
	shim := `case "$*" in *token=*dur=*) echo renewal >&3 ;; esac; exec ` + curl + ` "$@"`
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte("#!/usr/bin/env bash\n"+shim+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "hold"), 0o600); err != nil {
		t.Fatal(err)
	}
	told, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	s := newScript(t, p, dir, "once.sh", "nightly", "bash", "-c", "read <hold; exit 7")
	s.Env = append(s.Env, "DUR=18", "PATH="+dir+":"+os.Getenv("PATH"))
	s.ExtraFiles = []*os.File{tell}
	s.begin()
	if err := tell.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(told)
	tells := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it tells %q (%v), want %q; %s", lines.Text(), lines.Err(), want, s.stderr.String())
		}
	}
	tells("renewal")
	p.stop()
	tells("renewal")
	p = start(t, strings.Replace(config, "127.66.0.1:0", p.addr, 1))
	tells("renewal")
	tells("renewal") // the one before has been answered
	if err := os.WriteFile(filepath.Join(dir, "hold"), []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	s.endsQuietly(7)
	want(t, http.DefaultClient, "GET", "http://"+p.addr+"/db/cron/lock/nightly", http.StatusNotFound, "lock \"nightly\" of account \"cron\" is not locked\n")
	p.stop()
}

func TestRecipeQueueRunsOneAtATimeInOrder(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "queue.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	hold := filepath.Join(dir, "hold")
	if err := syscall.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	first := runScript(t, p, dir, "queue.sh", "printer", "bash", "-c", "echo 0 >>order; echo begun; cat hold")
	first.says("begun")
	var queued []*script
	for i := 1; i <= 3; i++ {
		queued = append(queued, runScript(t, p, dir, "queue.sh", "printer", "bash", "-c", fmt.Sprintf("echo %d >>order", i)))
		p.waits("mlock", i)
	}
	end, err := os.OpenFile(hold, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	first.endsQuietly(0)
	for _, s := range queued {
		s.endsQuietly(0)
	}
	if order, err := os.ReadFile(filepath.Join(dir, "order")); string(order) != "0\n1\n2\n3\n" {
		t.Errorf("they ran in the order %q (%v)", order, err)
	}

	// A script that is killed ends the job before it gives the mutex back.
	killed := runScript(t, p, dir, "queue.sh", "printer", "bash", "-c", "trap 'echo cleared >>order; exit' TERM; echo begun; while :; do read <hold; done")
	killed.says("begun")
	next := runScript(t, p, dir, "queue.sh", "printer", "bash", "-c", "echo next >>order")
	p.waits("mlock", 1)
	if err := killed.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	killed.endsQuietly(-1)
	next.endsQuietly(0)
	if order, err := os.ReadFile(filepath.Join(dir, "order")); string(order) != "0\n1\n2\n3\ncleared\nnext\n" {
		t.Errorf("they ran in the order %q (%v)", order, err)
	}
	p.stop()
}

// waits blocks until the given number of callers wait for a lock or a mutex.
func (p *process) waits(api string, n int) {
	p.t.Helper()
	text := fmt.Sprintf("clouddragon_lock_waiters{api=%q} %d\n", api, n)
	eventually(p.t, func() string {
		if _, body := ask(p.t, http.DefaultClient, "GET", "http://"+p.addr+"/metrics"); strings.Contains(body, text) {
			return ""
		}
		return fmt.Sprintf("/metrics has no line %q", text)
	})
}

func TestRecipePublishRefusesAStaleToken(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "publish.sh")
	publish := func(token, text string) int {
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("bash", "publish.sh", token, "new", "report")
		cmd.Dir = dir
		_ = cmd.Run() // its exit code says it
		return cmd.ProcessState.ExitCode()
	}
	for _, step := range []struct {
		token, text string
		code        int
		want        string
	}{
		{"41", "first", 0, "first"},
		{"43", "second", 0, "second"},
		{"42", "stale", 1, "second"},
		{"43", "again", 0, "again"},
		{"", "no token", 64, "again"},
		{"4x", "no token", 64, "again"},
		{"99999999999999999999", "no token", 64, "again"},
	} {
		if code := publish(step.token, step.text); code != step.code {
			t.Errorf("token %s: exit code %d, want %d", step.token, code, step.code)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "report")); string(got) != step.want {
			t.Errorf("after token %s: %q (%v), want %q", step.token, got, err, step.want)
		}
	}

	// The token is recorded even if the move fails or is interrupted.
	cmd := exec.Command("bash", "publish.sh", "50", "missing", "report")
	cmd.Dir = dir
	if err := cmd.Run(); err == nil {
		t.Error("a file that is not there was published")
	}
	if code := publish("49", "older"); code != 1 {
		t.Errorf("after token 50 was refused by mv, token 49: exit code %d, want 1", code)
	}
}
