package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestLockExitCodes(t *testing.T) {
	t.Parallel()
	p := start(t, strings.Replace(small(t, "listen: 127.0.0.1:0\n"), "limits: {", "limits: {dur: 1h, ", 1))
	server := "http://" + p.addr
	dir := t.TempDir()
	notExecutable := filepath.Join(dir, "plain")
	noInterpreter := filepath.Join(dir, "script")
	bare := filepath.Join(dir, "bare")
	for file, text := range map[string]string{notExecutable: "exit 0\n", noInterpreter: "#!/no/such/shell\n", bare: "exit 5\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{noInterpreter, bare} {
		if err := os.Chmod(file, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want(t, http.DefaultClient, "POST", lockURL(p, "taken")+"?id=other&dur=1h", http.StatusOK, "1\n")
	for i, c := range []struct {
		code int
		says string // "" : nothing
		args []string
	}{
		{0, "", []string{"N", "true"}},
		{7, "", []string{"N", "sh", "-c", "exit 7"}},
		{128 + 9, "", []string{"N", "sh", "-c", "kill -9 $$"}},
		{128 + 15, "", []string{"N", "sh", "-c", "kill $$"}},
		{0, "", []string{"-dur", "30m", "-wait", "1s", "--", "N", "true", "-dur"}},
		{5, "", []string{"N", bare}},
		{126, "is a directory", []string{"N", "/"}},
		{126, "permission denied", []string{"N", notExecutable}},
		{127, "not found", []string{"N", noInterpreter}},
		{127, "no-such-command: command not found", []string{"N", "no-such-command"}},
		{127, "not found", []string{"N", "/no/such/command"}},
		{75, `lock "taken" is held`, []string{"taken", "true"}},
		{75, `lock "taken" is still held`, []string{"-wait", "100ms", "taken", "true"}},
		{69, "no answer from http://127.0.0.1:1: ", []string{"-server", "127.0.0.1:1", "N", "true"}},
		{69, "no answer from unix:/no/such/socket: ", []string{"-server", "unix:/no/such/socket", "N", "true"}},
		{64, "dur must be a duration", []string{"-dur", "2h", "N", "true"}},
		{64, "want a NAME and a COMMAND", []string{"N"}},
		{64, "want a NAME and a COMMAND", nil},
		{64, "must not be empty", []string{"", "true"}},
		{64, "must not be empty", []string{"-account", "", "N", "true"}},
		{64, "exclude each other", []string{"-limit", "2", "-shared", "N", "true"}},
		{64, "is not an address", []string{"-server", "ftp://localhost", "N", "true"}},
		{64, "-token-file", []string{"-token-file", "/no/such/file", "N", "true"}},
		{64, "", []string{"..", "true"}},
	} {
		for j, a := range c.args {
			if a == "N" {
				c.args[j] = fmt.Sprintf("n%d", i)
			}
		}
		s := runLock(t, server, c.args...)
		switch {
		case c.says != "":
			s.complains(c.code, c.says)
		case c.code == 64:
			s.ends(64)
		default:
			s.endsQuietly(c.code)
		}
		free(t, p, fmt.Sprintf("n%d", i))
	}
	for _, flag := range []string{"-dur=x", "-dur=0", "-wait=-1", "-limit=0", "-kill-after=1e3", "-no-such-flag"} {
		name, _, _ := strings.Cut(flag, "=")
		runLock(t, server, flag, "n", "true").complains(64, name)
	}
	p.stop()
}

func TestLockTellsAForeignServer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"a page":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello</html>") },
		"no page":        http.NotFound,
		"a redirect":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"a bad gateway":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) { half(w) },
		"a reset":        func(w http.ResponseWriter, _ *http.Request) { reset(w) },
		"no answer":      func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			defer server.Close()
			runLock(t, server.URL, "-dur", "3", "n", "echo", "run").complains(69, "not run: ")
		})
	}
}

func TestLockSendsTheToken(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "socket")
	p := start(t, small(t, "listen: unix:"+socket+"\ntoken: secret\n"))
	server := "unix:" + socket
	runLock(t, server, "n", "true").complains(77, "not run: ")

	s := lockCommand(t, server, "n", "true")
	s.Env = append(s.Env, "CLOUDDRAGON_TOKEN=wrong")
	s.begin()
	s.complains(77, "not run: ")

	s = lockCommand(t, server, "n", "true")
	s.Env = append(s.Env, "CLOUDDRAGON_TOKEN=secret")
	s.begin()
	s.endsQuietly(0)

	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runLock(t, server, "-token-file", file, "n", "true").endsQuietly(0)
	p.stop()
}

func TestLockHandsOnItsSurroundings(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	s := lockCommand(t, "http://"+p.addr, "-account", "a/b", "night ly", "sh", "-c",
		`echo "$CLOUDDRAGON_LOCK" "$CLOUDDRAGON_LOCK_TOKEN" "$PWD"; cat; cat <&9`)
	s.Dir = t.TempDir()
	in := s.input()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.ExtraFiles = make([]*os.File, 7)
	s.ExtraFiles[6] = r
	s.begin()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s.says("night ly 1 " + s.Dir)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/a%2Fb/lock/night%20ly?id=x", http.StatusConflict, heldLine(t, p, "a%2Fb", "night%20ly"))
	for file, text := range map[io.WriteCloser]string{in: "from stdin\n", w: "from 9\n"} {
		if _, err := io.WriteString(file, text); err != nil {
			t.Fatal(err)
		}
	}
	closeInput(t, in)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.says("from stdin")
	s.says("from 9")
	s.endsQuietly(0)

	// Without a shell in between, which may change this, no signal is blocked or ignored
	// except those that were for the test itself, such as SIGHUP under nohup, and 32 and 33
	// under make.
	came := signalMasks(t)
	s = runLock(t, "http://"+p.addr, "n", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
	for range 2 {
		name, mask, _ := strings.Cut(s.line(), ":\t")
		set, err := strconv.ParseUint(mask, 16, 64)
		if err != nil || set&^came[name] != 0 {
			t.Errorf("%s is %s, was %x: %v", name, mask, came[name], err)
		}
	}
	s.endsQuietly(0)
	p.stop()
}

// signalMasks returns the sets of signals in this process's status by name, such as SigIgn.
func signalMasks(t *testing.T) map[string]uint64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	masks := make(map[string]uint64)
	for line := range strings.Lines(string(status)) {
		if name, mask, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(name, "Sig") && name != "SigQ" {
			if masks[name], err = strconv.ParseUint(strings.TrimSpace(mask), 16, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return masks
}

func heldLine(t *testing.T, p *process, account, name string) string {
	t.Helper()
	_, body := ask(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/"+account+"/lock/"+name+"?id=y")
	return body
}

func TestLockIDIsUnique(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	for range 4 {
		runLock(t, f.url, "n", "true").endsQuietly(0)
	}
	runLock(t, f.url, "-id", "me", "n", "true").endsQuietly(0)
	ids := map[string]bool{}
	for _, q := range f.asked() {
		ids[q.Get("id")] = true
	}
	if len(ids) != 5 || !ids["me"] {
		t.Errorf("the ids of five runs are %v, want five, one of them \"me\"", ids)
	}
	p.stop()
}

func TestLockForwardsSignals(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	for name, sig := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		if signal.Ignored(sig) {
			t.Logf("SIG%s is left out: whoever started the tests ignores it, and a shell cannot trap it then", name)
			continue
		}
		// The child of the command gets the signal too.
		s, _ := beginLock(t, "http://"+p.addr, name, "bash", "-c",
			`trap 'echo parent; exit 3' `+name+`; bash -c 'trap "echo child; exit" `+name+`; echo begun; until read -t 0.1 x; do :; done'; exit 4`)
		s.send(sig)
		s.says("child")
		s.says("parent")
		s.endsQuietly(3)
		free(t, p, name)

		// Without a trap the signal ends the command.
		s = lockCommand(t, "http://"+p.addr, name, "sh", "-c", "echo begun; exec sleep 1000")
		s.begin()
		s.says("begun")
		s.send(sig)
		s.endsQuietly(128 + int(sig))
	}
	p.stop()
}

// A signal ends the command even while it waits for the file with the token, and no process
// stays behind.
func TestLockThatWaitsForItsTokenFileIsEndedBySignals(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s := lockCommand(t, "http://127.0.0.1:1", "-token-file", fifo, "n", "echo", "ran")
	s.begin()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // once it reads
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s.send(syscall.SIGTERM)
	s.ends(128 + int(syscall.SIGTERM))
	if got := s.stderr.String(); got != "" {
		t.Errorf("it prints %q", got)
	}
	if _, err := w.WriteString("x"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("somebody still reads the file: %v", err)
	}
}

func TestLockHelp(t *testing.T) {
	t.Parallel()
	s := runLock(t, "", "-help")
	var help strings.Builder
	for s.lines.Scan() {
		help.WriteString(s.lines.Text() + "\n")
	}
	s.endsQuietly(0)
	for _, word := range []string{"-server", "-token-file", "-account", "-dur", "-wait", "-least", "-limit", "-shared", "-id", "-kill-after",
		"CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN", "CLOUDDRAGON_LOCK", "CLOUDDRAGON_LOCK_TOKEN", "  64 ", "  69 ", "  75 ", "  77 ", "126", "127", "128+n"} {
		if !strings.Contains(help.String(), word) {
			t.Errorf("the help does not name %s", word)
		}
	}
}

func TestLockModes(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	server := "http://" + p.addr
	for _, mode := range [][]string{{"-limit", "2"}, {"-shared"}} {
		name := mode[0][1:]
		var held []*script
		var ends []io.Closer
		for range 2 {
			s := lockCommand(t, server, append(mode, name, "sh", "-c", "echo begun; read x; exit 3")...)
			ends = append(ends, s.input())
			s.begin()
			s.says("begun")
			held = append(held, s)
		}
		runLock(t, server, name, "echo", "run").complains(75, "not run: ")
		if name == "limit" {
			runLock(t, server, append(mode, name, "echo", "run")...).complains(75, "not run: ")
		}
		for i, s := range held {
			if err := ends[i].Close(); err != nil {
				t.Error(err)
			}
			s.endsQuietly(3)
		}
		free(t, p, name)
	}
	runLock(t, server, "-least", "1h", "least", "true").endsQuietly(0)
	runLock(t, server, "least", "echo", "run").complains(75, "not run: ")
	p.stop()
}
