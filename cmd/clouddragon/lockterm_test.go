package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal. The test plays its user.
type terminal struct {
	t      *testing.T
	user   *os.File // what the user types and sees
	device *os.File // the side of the programs
	seen   string   // all that was printed
	next   int      // where the part of seen begins that the test has not looked at yet
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = user.Close() }) // the test is over
	var number int
	control, err := user.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err2 := control.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // as above
	mode, err := unix.IoctlGetTermios(int(device.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Lflag &^= unix.ECHO // what is typed is not seen
	if err := unix.IoctlSetTermios(int(device.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	if err := user.SetReadDeadline(time.Now().Add(6 * patience)); err != nil {
		t.Fatal(err)
	}
	return &terminal{t: t, user: user, device: device}
}

// run starts a command as the first of a session on the terminal.
func (m *terminal) run(server string, argv ...string) *script {
	m.t.Helper()
	s := command(m.t, server, argv...)
	s.Env = append(s.Env, "PS1=ready$ ", "TERM=dumb")
	s.Stdin, s.Stdout, s.Stderr = m.device, m.device, m.device
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.begin()
	return s
}

// types types text.
func (m *terminal) types(text string) {
	m.t.Helper()
	if _, err := m.user.WriteString(text); err != nil {
		m.t.Fatal(err)
	}
}

// shows waits until text is printed.
func (m *terminal) shows(text string) {
	m.t.Helper()
	b := make([]byte, 4096)
	for !strings.Contains(m.seen[m.next:], text) {
		n, err := m.user.Read(b)
		if err != nil {
			m.t.Fatalf("the terminal shows %q (%v), want %q", m.seen[m.next:], err, text)
		}
		m.seen += string(b[:n])
	}
	m.next += strings.Index(m.seen[m.next:], text) + len(text)
}

// A process tells by the time whether it got the same signal as another one. If the machine holds one of
// them up, the command gets the signal twice, and the test is repeated.
func TestLockOnATerminalPassesOnWhatTheGroupDoesNotGet(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	program, err := lockProgram()
	if err != nil {
		t.Fatal(err)
	}
	wrong := ""
	for range 5 {
		if wrong = passesOnOnce(newTerminal(t), "http://"+p.addr, program); wrong == "" {
			break
		}
		t.Log(wrong)
	}
	if wrong != "" {
		t.Error("it was never right")
	}
	free(t, p, "n")
	p.stop()
}

// passesOnOnce sends signals to the process group of `clouddragon lock` or to one process, and returns
// what was wrong with those that the command got.
func passesOnOnce(m *terminal, server, program string) string {
	m.t.Helper()
	s := m.run(server, program, "lock", "n", "bash", "-c",
		`trap 'echo "<int>"' INT; trap 'echo "<usr1>"' USR1; trap 'echo "<term>"' TERM; echo begun; until read -t 0.1 x; do :; done; echo "<$x>"; exit 3`)
	m.shows("begun")
	m.types("\x03")
	m.shows("<int>")
	for range 2 { // the second one comes long after the processes have seen the INT
		s.send(syscall.SIGUSR1)
		m.shows("<usr1>") // a second INT would have come before
	}
	s.send(syscall.SIGINT)
	m.shows("<int>")
	if err := syscall.Kill(-s.Process.Pid, syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	m.shows("<term>")
	s.send(syscall.SIGUSR1)
	m.shows("<usr1>")
	m.types("done\n")
	m.shows("<done>")
	_ = s.Wait() // the exit code says it
	if code := s.ProcessState.ExitCode(); code != 3 {
		m.t.Errorf("exit code %d, want 3", code)
	}
	if n, terms := strings.Count(m.seen, "<int>"), strings.Count(m.seen, "<term>"); n != 2 || terms != 1 {
		return fmt.Sprintf("the command got INT %d times and TERM %d times, want 2 and 1:\n%s", n, terms, m.seen)
	}
	return ""
}

func TestLockUnderAShellsJobControl(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	f := newFaulty(t, p.addr)
	program, err := lockProgram()
	if err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	m := newTerminal(t)
	shell := m.run(f.url, "bash", "--norc", "--noprofile", "--noediting", "-i")
	m.shows("ready$ ")
	lock := program + " lock -dur 9 -kill-after 1s n "

	// Stopped, the command keeps its lock. Then it continues in the foreground.
	m.types(lock + "bash -c 'echo begun; read x; echo got-$x; exit 3'\n")
	m.shows("begun")
	m.types("\x1a")
	m.shows("Stopped")
	m.shows("ready$ ")
	f.renewed(t, 4)
	m.types("fg\n")
	m.types("hello\n")
	m.shows("got-hello")
	m.types("echo rc=$?\n")
	m.shows("rc=3")
	free(t, p, "n")

	// Stopped, the command continues in the background.
	m.types(lock + "bash -c 'echo begun; read x <" + fifo + "; echo got-$x; exit 4'\n")
	m.shows("begun")
	m.types("\x1a")
	m.shows("Stopped")
	m.types("bg\n")
	m.shows("ready$ ")
	if err := os.WriteFile(fifo, []byte("bg\n"), 0); err != nil {
		t.Fatal(err)
	}
	m.shows("got-bg")
	m.types("wait %1; echo rc=$?\n")
	m.shows("rc=4")

	// As a part of a pipeline.
	m.types(lock + "bash -c 'echo begun; sleep 1000' | cat\n")
	m.shows("begun")
	m.types("\x03")
	m.types("echo rc=${PIPESTATUS[*]}\n")
	m.shows("rc=130")
	free(t, p, "n")

	// ^C ends a loop of the shell, as it does without clouddragon.
	m.types("while :; do " + lock + "bash -c 'echo begun; exec sleep 1000'; done\n")
	m.shows("begun")
	m.types("\x03")
	m.shows("ready$ ")
	m.types("echo free\n")
	m.shows("free")

	// Stopped while it waits for the lock: the command starts when the job is continued.
	want(t, http.DefaultClient, "POST", lockURL(p, "n")+"?id=other&dur=600", http.StatusOK, "5\n")
	m.types(program + " lock -dur 9 -kill-after 1s -wait 1h n sh -c 'echo star\"\"ted'\n")
	p.waits("lock", 1)
	m.types("\x1a")
	m.shows("Stopped")
	want(t, http.DefaultClient, "DELETE", lockURL(p, "n")+"?id=other", http.StatusNoContent, "")
	f.renewed(t, 2)
	if strings.Contains(m.seen[m.next:], "started") {
		t.Error("the command was started in a job that is stopped")
	}
	m.types("fg\n")
	m.shows("started\r\n")
	m.shows("ready$ ")

	// A script that runs clouddragon lock continues when the lock is lost.
	m.types("bash -c '" + lock + "sh -c \"echo begun; exec sleep 1000\"; echo after=$?'\n")
	m.shows("begun")
	force(t, p, "n")
	m.shows("is lost")
	m.shows("after=75")

	m.types("exit 5\n")
	_ = shell.Wait() // the exit code says it
	if code := shell.ProcessState.ExitCode(); code != 5 {
		t.Errorf("the shell ends with %d, want 5:\n%s", code, m.seen)
	}
	p.stop()
}

// Whichever of the two processes is killed, the command and what it started end.
func TestLockOnATerminalEndsTheCommandIfItIsKilled(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	program, err := lockProgram()
	if err != nil {
		t.Fatal(err)
	}
	for _, victim := range []string{"front", "keeper"} {
		held, hold, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		m := newTerminal(t)
		s := command(t, "http://"+p.addr, program, "lock", "-dur", "12", "-kill-after", "1s", victim, "bash", "-c",
			// The first child has lost its parent, the second one has a process group of its own.
			`trap "" HUP; (sh -c "trap '' TERM; sleep 1000" &); set -m; sh -c "trap '' TERM HUP; sleep 1000" & echo begun; wait`)
		s.Stdin, s.Stdout, s.Stderr = m.device, m.device, m.device
		s.ExtraFiles = []*os.File{hold}
		s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		s.begin()
		if err := hold.Close(); err != nil {
			t.Fatal(err)
		}
		m.shows("begun")
		pid := s.Process.Pid
		if victim == "keeper" {
			pid = s.keeper()
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := held.SetReadDeadline(time.Now().Add(3 * patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := held.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
			t.Errorf("%s killed: a process of the command lives on: %v", victim, err)
		}
		if victim == "keeper" {
			m.shows("was killed, and the command is ended")
		}
		_ = s.Wait() // the exit code says it
		if code, want := s.ProcessState.ExitCode(), map[string]int{"front": -1, "keeper": 75}[victim]; code != want {
			t.Errorf("%s killed: exit code %d, want %d", victim, code, want)
		}
	}
	p.stop()
}

// TestLockUnderOtherPrograms starts clouddragon lock as cron does, and under programs that
// change how a job runs.
func TestLockUnderOtherPrograms(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	server := "http://" + p.addr
	program, err := lockProgram()
	if err != nil {
		t.Fatal(err)
	}
	lock := []string{program, "lock", "-server", server, "n", "sh", "-c"}
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"cron", append([]string{"env", "-i", "HOME=/", "LOGNAME=root", "SHELL=/bin/sh", "PATH=/usr/bin:/bin", "/bin/sh", "-c", `"$@"`, "sh"}, lock...)},
		{"nohup", append([]string{"nohup"}, lock...)},
		{"timeout", append([]string{"timeout", "100"}, lock...)},
		{"setsid", append([]string{"setsid", "-w"}, lock...)},
		{"sudo", append([]string{"sudo", "-n"}, lock...)},
	} {
		if _, err := exec.LookPath(c.argv[0]); err != nil {
			t.Logf("%s is not here", c.name)
			continue
		}
		s := command(t, server, append(c.argv, "echo begun; exit 3")...)
		s.begin()
		s.says("begun")
		s.ends(3)
		free(t, p, "n")
	}

	// nohup: a hang-up does not reach the command.
	s := command(t, server, append(append([]string{"nohup"}, lock...), "echo begun; read x; exit 3")...)
	in := s.input()
	s.begin()
	s.says("begun")
	s.send(syscall.SIGHUP)
	closeInput(t, in)
	s.endsQuietly(3)

	// timeout: the command ends with it, also by KILL. SIGALRM tells timeout that the time is over.
	for _, sig := range []string{"TERM", "KILL"} {
		s = command(t, server, append(append([]string{"timeout", "-s", sig, "1000"}, lock[:4]...), "-dur", "9", "t"+sig, "sh", "-c", "echo begun; sleep 1000")...)
		s.begin()
		s.says("begun")
		s.send(syscall.SIGALRM)
		s.ends(map[string]int{"TERM": 124, "KILL": -1}[sig])
	}
	p.stop()
}
