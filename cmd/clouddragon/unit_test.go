package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestUnitStartsAgainAfterWhateverMayMendItself reads the systemd unit.
func TestUnitStartsAgainAfterWhateverMayMendItself(t *testing.T) {
	b, err := os.ReadFile("clouddragon.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Restart=always", "StartLimitIntervalSec=0", "ExecReload=/bin/sh -c 'kill -HUP \"$MAINPID\"'", "Type=notify",
		fmt.Sprintf("RestartPreventExitStatus=%d %d", exitUsage, exitConfig),
	} {
		if !strings.Contains(string(b), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}

// analyze returns systemd-analyze, or skips the test.
func analyze(t *testing.T) string {
	t.Helper()
	name, err := exec.LookPath("systemd-analyze")
	if err != nil {
		needed(t, "systemd-analyze, of Debian's package systemd")
	}
	return name
}

// needed skips the test because a program is missing, or fails it where everything has to be
// tested.
func needed(t *testing.T, program string) {
	t.Helper()
	if os.Getenv("CLOUDDRAGON_CRASH_REQUIRED") != "" {
		t.Fatalf("NOT TESTED: %s is not installed", program)
	}
	t.Skipf("NOT TESTED: %s is not installed", program)
}

func TestSystemdFindsNoFaultInTheUnit(t *testing.T) {
	analyze := analyze(t)
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"clouddragon.service", "clouddragon-backup.service", "clouddragon-backup.timer"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The unit as it is installed, and with the lines that are commented out.
		text := strings.NewReplacer("/usr/local/bin/clouddragon", binary, "\n#LoadCredential", "\nLoadCredential").Replace(string(b))
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, file)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "clouddragon") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// mostExposure is the greatest exposure level that systemd-analyze may find, in tenths.
const mostExposure = "15"

func TestUnitsAreExposedLittle(t *testing.T) {
	analyze := analyze(t)
	for _, unit := range []string{"clouddragon.service", "clouddragon-backup.service"} {
		out, err := exec.Command(analyze, "security", "--offline=true", "--threshold="+mostExposure, unit).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze security %s: %v\n%s", unit, err, out)
		}
	}
}

// allowed returns the system calls that the unit's filter lets through.
func allowed(t *testing.T, analyze string) map[string]bool {
	t.Helper()
	// The output has the name of each set, followed by its members, indented.
	out, err := exec.Command(analyze, "syscall-filter").CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter: %v\n%s", err, out)
	}
	sets, set := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || word[0] == '#':
		case line[0] == '@':
			set = word
		case line[0] == ' ' && set != "":
			sets[set] = append(sets[set], word)
		}
	}
	calls := map[string]bool{}
	var mark func(name string, let bool)
	mark = func(name string, let bool) {
		if name[0] != '@' {
			calls[name] = let
			return
		}
		if len(sets[name]) == 0 {
			t.Fatalf("systemd-analyze knows no %s", name)
		}
		for _, inner := range sets[name] {
			mark(inner, let)
		}
	}
	for line := range strings.Lines(readFile(t, "clouddragon.service")) {
		filter, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		filter, deny := strings.CutPrefix(filter, "~")
		for _, name := range strings.Fields(filter) {
			mark(name, !deny)
		}
	}
	return calls
}

// TestFilterOfTheUnitLetsEverySystemCallThrough runs a server under strace through a
// start, every kind of request, a reload, growth, compaction, a backup, a kill, a
// recovery and a stop.
func TestFilterOfTheUnitLetsEverySystemCallThrough(t *testing.T) {
	t.Parallel()
	analyze := analyze(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		needed(t, "strace")
	}
	calls := allowed(t, analyze)
	m := newManager(t)
	go func() { // so that messages do not fill the queue
		for b := make([]byte, 100); ; {
			if _, err := m.conn.Read(b); err != nil {
				return
			}
		}
	}()
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	socket := filepath.Join(dir, "socket")
	config := fmt.Sprintf("listen: unix:%s\nsocket: {mode: \"0660\", group: \"%d\"}\ndata: %s\nlimits: {value: 32KiB}\nlog: {segment: 64KiB, garbage: 10}\n", socket, os.Getgid(), filepath.Join(dir, "data"))
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for run := range 2 {
		p := prepare(t, config, m.environment(), "WATCHDOG_USEC=20000")
		p.cmd.Args = append([]string{strace, "-f", "-qq", "-o", fmt.Sprintf("%s%d", trace, run)}, p.cmd.Args...)
		p.cmd.Path = strace
		p.logged()
		p.serves()
		url := "http://localhost"
		body := strings.Repeat("x", 30<<10)
		for i := range 30 {
			r, err := http.NewRequestWithContext(t.Context(), "PUT", fmt.Sprintf("%s/db/a/kv/v%d", url, i%7), strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
				t.Fatalf("PUT: %d, %v", res.StatusCode, err)
			}
			_ = res.Body.Close() // it was read
		}
		for _, c := range []string{
			"POST /db/a/sequence/s", "POST /db/a/counter/c?add=2", "GET /db/a/kv/v1", "DELETE /db/a/kv/v2", "POST /db/a/mlock/m?dur=1",
			"POST /db/a/lock/l?id=a&dur=1", "POST /db/a/rate/r?limit=9&per=1", "GET /db/a/kv", "GET /db", "GET /metrics", "GET /healthz", "GET /backup",
		} {
			method, path, _ := strings.Cut(c, " ")
			if status, answer := ask(t, client, method, url+path); status > 204 && status != 409 {
				t.Errorf("%s: %d %q", c, status, answer)
			}
		}
		server := childOf(t, p.cmd.Process.Pid)
		if err := server.Signal(syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		p.line("msg=reloaded")
		end := []os.Signal{syscall.SIGKILL, syscall.SIGTERM}[run]
		if err := server.Signal(end); err != nil {
			t.Error(err)
		}
		p.exit()
	}
	call := regexp.MustCompile(`(?m)^\d+ +(\w+)\(`)
	seen := map[string]bool{}
	for run := range 2 {
		for _, match := range call.FindAllStringSubmatch(readFile(t, fmt.Sprintf("%s%d", trace, run)), -1) {
			seen[match[1]] = true
		}
	}
	for name := range seen {
		if !calls[name] {
			t.Errorf("the server calls %s, which the unit's filter refuses", name)
		}
	}
	for _, name := range []string{"mmap", "msync", "fallocate", "fdatasync", "epoll_ctl", "pwrite64", "fchownat"} {
		if !seen[name] {
			t.Errorf("the server did not call %s: %v", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}

// childOf returns the one child of a process.
func childOf(t *testing.T, pid int) *os.Process {
	t.Helper()
	text := strings.TrimSpace(readFile(t, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)))
	child, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("the children of %d: %q", pid, text)
	}
	p, err := os.FindProcess(child)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
