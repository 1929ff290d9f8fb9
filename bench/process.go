package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// process is a program that is measured. It ends with this one, whatever
// happens to this one.
type process struct {
	addr string // where it said that it listens, if it did
	cmd  *exec.Cmd
	last []string      // of its output, for an error message; to be read once done is closed
	done chan struct{} // closed once it has ended
}

// childAttr makes a child of its own group, so that Ctrl-C reaches it only
// through us, and one that dies with us. The latter is by thread: see main.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// start runs a program until a line of its output matches ready, whose last
// group is the address that it serves on. When ctx ends, so does the program.
func start(ctx context.Context, ready *regexp.Regexp, name string, args ...string) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = w, w, childAttr()
	err = p.cmd.Start()
	w.Close() // the child has its own
	if err != nil {
		r.Close()
		return nil, err
	}
	served := make(chan string, 1)
	go p.read(r, ready, served)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case p.addr = <-served:
		return p, nil
	case <-p.done:
		err = fmt.Errorf("%s ended before it served", name)
	case <-timeout.C:
		p.kill()
		err = fmt.Errorf("%s does not serve after %v", name, patience)
	}
	return nil, fmt.Errorf("%w; it said:\n%s", err, strings.Join(p.last, "\n"))
}

// read reads the output until the program ends.
func (p *process) read(r *os.File, ready *regexp.Regexp, served chan<- string) {
	defer close(p.done)
	defer r.Close()
	waiting := true
	for s := bufio.NewScanner(r); s.Scan(); {
		p.last = append(p.last[max(0, len(p.last)-19):], s.Text())
		if m := ready.FindStringSubmatch(s.Text()); waiting && m != nil {
			waiting = false
			served <- m[len(m)-1]
		}
	}
	io.Copy(io.Discard, r) // after a line that is too long: the program must not block
	_ = p.cmd.Wait()       // how it ended is of no interest: it is killed in the end
}

// kill ends a process as a power cut would, as far as the process can tell.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

func (p *process) pid() int { return p.cmd.Process.Pid }
