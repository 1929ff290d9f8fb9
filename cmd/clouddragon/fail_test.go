package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// logLines passes on each line of a log.
type logLines struct {
	mu    sync.Mutex // guards part
	part  []byte
	lines chan string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, ok := bytes.Cut(l.part, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.lines <- string(line)
		l.part = rest
	}
}

// inProcess serves from a disk of the test. It returns the address and a channel for the exit
// code.
func inProcess(t *testing.T, fsys disk.FS, signals <-chan os.Signal) (url string, code <-chan int) {
	t.Helper()
	c := Defaults()
	c.Listen, c.Data, c.Segment, c.Limits.Value = "127.0.0.1:0", "data", 1<<20, 64<<10
	log := &logLines{lines: make(chan string, 1000)}
	ended := make(chan int, 1)
	go func() {
		ended <- serve(fsys, c, environment{log: slog.New(slog.NewTextHandler(log, nil)), stop: signals})
	}()
	for timeout := time.After(patience); ; {
		select {
		case line := <-log.lines:
			if m := regexp.MustCompile(`msg=listening addr=(\S+)`).FindStringSubmatch(line); m != nil {
				return "http://" + m[1], ended
			}
		case code := <-ended:
			t.Fatalf("it ended with %d before it served", code)
		case <-timeout:
			t.Fatal("it does not serve")
		}
	}
}

// soon receives a value that must come soon.
func soon(t *testing.T, what string, c <-chan int) int {
	t.Helper()
	select {
	case n := <-c:
		return n
	case <-time.After(patience):
		t.Fatalf("%s: nothing came within %v", what, patience)
		return 0
	}
}

// TestFailedSyncIsAnsweredAndEndsTheServer fails one sync under a write, while a caller waits for a
// lock and another one does not send the rest of a value. A failed server waits for neither.
func TestFailedSyncIsAnsweredAndEndsTheServer(t *testing.T) {
	fsys := memdisk.New()
	url, code := inProcess(t, fsys, nil)
	want(t, http.DefaultClient, "POST", url+"/db/1/sequence/a", 200, "1\n")
	want(t, http.DefaultClient, "POST", url+"/db/1/lock/l?id=a", 200, "1\n")
	waiter := make(chan int, 1)
	go func() {
		res, err := http.Post(url+"/db/1/lock/l?id=b&wait=600", "", nil)
		if err != nil {
			waiter <- 0
			return
		}
		waiter <- res.StatusCode
		_ = res.Body.Close()
	}()
	waitForMetric(t, url, `clouddragon_lock_waiters{api="lock"} 1`)
	slowClient(t, strings.TrimPrefix(url, "http://"))

	fsys.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync && strings.Contains(op.Name, "log/") {
			return syscall.EIO
		}
		return nil
	})
	began := time.Now()
	status, body := ask(t, http.DefaultClient, "POST", url+"/db/1/sequence/a")
	if status != 503 || !strings.Contains(body, "unknown") {
		t.Errorf("the write under way: got %d %q, want 503 and that its outcome is unknown", status, body)
	}
	if status := soon(t, "the answer to the waiter", waiter); status != 503 {
		t.Errorf("the waiter: got %d, want 503", status)
	}
	if c := soon(t, "the end after the disk failed", code); c != exitFailed {
		t.Errorf("exit %d, want %d", c, exitFailed)
	}
	if took := time.Since(began); took >= drainTime {
		t.Errorf("it ended after %v, as a stop without a failure, want about %v", took, failTime)
	}
	if n := fsys.OpenHandles(); n != 0 {
		t.Errorf("%d files are open at the end", n)
	}

	// The next start either has the write or not, and never hands out an earlier number again.
	signals := make(chan os.Signal, 1)
	url, code = inProcess(t, fsys.Reopen(), signals)
	if status, body := ask(t, http.DefaultClient, "POST", url+"/db/1/sequence/a"); status != 200 || body != "2\n" && body != "3\n" {
		t.Errorf("after the next start: got %d %q, want 2 or 3", status, body)
	}
	signals <- syscall.SIGTERM
	if c := soon(t, "the end after a signal", code); c != exitOK {
		t.Errorf("exit %d, want %d", c, exitOK)
	}
}

// TestStopEndsThoughTheDiskHangs has a sync that never returns.
func TestStopEndsThoughTheDiskHangs(t *testing.T) {
	t.Parallel()
	fsys := memdisk.New()
	signals := make(chan os.Signal, 1)
	url, code := inProcess(t, fsys, signals)
	want(t, http.DefaultClient, "POST", url+"/db/1/sequence/a", 200, "1\n")
	hangs, goOn := make(chan struct{}, 100), make(chan struct{})
	defer close(goOn)
	fsys.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync && strings.Contains(op.Name, "log/") {
			hangs <- struct{}{}
			<-goOn
		}
		return nil
	})
	go func() {
		if res, err := http.Post(url+"/db/1/sequence/a", "", nil); err == nil {
			_ = res.Body.Close() // it may be answered or not
		}
	}()
	<-hangs
	signals <- syscall.SIGTERM
	if c := soon(t, "the end after a signal", code); c != exitOK {
		t.Errorf("exit %d, want %d", c, exitOK)
	}
}

func TestVerifySaysWhatIsDamagedAndWhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := fmt.Sprintf("listen: 127.0.0.1:0\ndata: %s\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n", dir)
	check := func(code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		if c := run([]string{"verify", "-data", dir}, &out, &errs); c != code || !strings.Contains(out.String(), stdout) || !strings.Contains(errs.String(), stderr) {
			t.Errorf("verify: exit %d, stdout %q, stderr %q; want %d, %q, %q", c, &out, &errs, code, stdout, stderr)
		}
	}
	p := start(t, config)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	check(1, "", fmt.Sprintf("is locked by another process (clouddragon, pid %d,", p.cmd.Process.Pid))
	p.stop()
	check(0, dir+": no damage: 1 slot in use", "")

	flip := func(name string, at int) {
		t.Helper()
		name = filepath.Join(dir, name)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// As after a crash: this is no damage, but verify mentions it.
	flip("CHECKPOINT", 40)
	check(0, dir+": one of the two copies in CHECKPOINT is damaged (checksum ", "")
	check(0, dir+": no damage: 1 slot in use", "")
	flip("CHECKPOINT", 40)
	// The start does without the file.
	flip("index", 90)
	check(1, "index at byte 0: the index snapshot is damaged: ", "")
	check(1, dir+": damaged in 1 place\n", "")
	flip("index", 90)
	check(0, dir+": no damage: 1 slot in use", "")

	runs, err := filepath.Glob(filepath.Join(dir, "names", "run-*"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("the runs of the index of names: %v, %v", runs, err)
	}
	for _, name := range []string{"manifest", filepath.Base(runs[0])} {
		flip(filepath.Join("names", name), 5)
		check(1, "names at byte 0: the index of names is damaged: "+name, "")
		check(1, "; lost: nothing, since the next start rebuilds it\n"+dir+": damaged in 1 place\n", "")
		flip(filepath.Join("names", name), 5)
	}
	check(0, ", the index of names is good\n", "")
	if err := os.Rename(filepath.Join(dir, "names"), filepath.Join(dir, "names.away")); err != nil {
		t.Fatal(err)
	}
	check(0, "; there is no index of names, so the next start makes one\n", "")
	p = start(t, config) // makes a newer one
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "2\n")
	p.stop()
	newer := filepath.Join(dir, "names")
	if err := errors.Join(os.RemoveAll(newer), os.Rename(filepath.Join(dir, "names.away"), newer)); err != nil {
		t.Fatal(err)
	}
	check(0, "; the index of names is stale (it ends with batch ", "")
	check(0, "), so the next start rebuilds it\n", "")

	flip("slots-64", 4096+20) // within the first slot
	check(1, "slots-64 at byte 4096: ", "")
	check(1, dir+": damaged in 1 place\n", "")

	p = launch(t, config)
	if code := p.exit(); code != 1 || !strings.Contains(p.log, "slots-64 at byte 4096") {
		t.Errorf("a start: exit %d, want 1 and a message that names the slot:\n%s", code, p.log)
	}
}

func TestDataDirectoryThatVanishedIsNamed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, fmt.Sprintf("listen: 127.0.0.1:0\ndata: %s\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n", dir))
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 || !strings.Contains(p.log, `the data directory is gone: it was removed, renamed or unmounted while the server used it" data=`+dir) {
		t.Errorf("exit %d, want 1 and that the directory is gone; it said:\n%s", code, p.log)
	}
}
