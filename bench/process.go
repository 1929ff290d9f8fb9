package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// process is a program that is measured. It ends with this one, whatever
// happens to this one.
type process struct {
	name string
	addr string // what it said it listens on, if it did
	cmd  *exec.Cmd
	out  *lines
	done chan struct{} // closed once it has ended
	err  error         // how; set before done is closed
}

// childAttr makes a child of its own group, so that Ctrl-C reaches it only
// through us, and one that dies with us. The latter is by thread: see main.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// start runs a program until a line of its output matches ready, whose first
// group, if it has one, is the address that it serves on. When ctx ends, so
// does the program.
func start(ctx context.Context, ready *regexp.Regexp, name string, args ...string) (*process, error) {
	r, w := io.Pipe()
	p := &process{name: name, cmd: exec.CommandContext(ctx, name, args...), out: new(lines), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.SysProcAttr = childAttr()
	p.cmd.WaitDelay = time.Second // for what it left running with its output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	served := make(chan string, 1)
	go p.out.read(r, ready, served)
	go func() {
		p.err = p.cmd.Wait()
		w.Close() // never fails
		close(p.done)
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case p.addr = <-served:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it served (%w); it said:\n%s", name, p.err, p.out)
	case <-timeout.C:
		p.kill()
		return nil, fmt.Errorf("%s does not serve after %v; it said:\n%s", name, patience, p.out)
	}
}

// kill ends a process as a power cut would, as far as the process can tell.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// stop ends a process as it wants to be ended.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s does not end after %v; it said:\n%s", p.name, patience, p.out)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; it said:\n%s", p.name, p.err, p.out)
	}
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// lines keeps the last lines of a program's output, for an error message.
type lines struct {
	mu   sync.Mutex // guards last
	last [][]byte
}

const linesKept = 20

func (l *lines) read(r io.Reader, ready *regexp.Regexp, served chan<- string) {
	waiting := true
	for s := bufio.NewScanner(r); s.Scan(); {
		line := bytes.Clone(s.Bytes())
		l.mu.Lock()
		l.last = append(l.last, line)
		if len(l.last) > linesKept {
			l.last = l.last[1:]
		}
		l.mu.Unlock()
		if m := ready.FindSubmatch(line); waiting && m != nil {
			waiting = false
			served <- string(m[len(m)-1])
		}
	}
	io.Copy(io.Discard, r) // after a line that is too long: what it says is of no use, but it must not block
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Join(l.last, []byte("\n")))
}
