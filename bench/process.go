package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that is measured. It ends when this one does, however this one
// ends.
type process struct {
	cmd  *exec.Cmd
	last []string      // of its output, for an error message; to be read once done is closed
	done chan struct{} // closed once it has ended
}

// serving matches the line that each server prints when it is ready.
var serving = regexp.MustCompile(`listening (addr=)?127|Ready to accept connections|serving (insecure )?client`)

// start runs a program and returns once it serves. When ctx ends, so does the program.
func start(ctx context.Context, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	// With its own process group it gets Ctrl-C only through us. It dies with the thread that starts it; see main.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	served := make(chan struct{}, 1)
	go p.read(output, served)
	select {
	case <-served:
		return p, nil
	case <-p.done:
		err = fmt.Errorf("%s ended before it served", name)
	case <-time.After(patience):
		err = errors.Join(fmt.Errorf("%s does not serve after %v", name, patience), p.end(os.Kill))
	}
	return nil, fmt.Errorf("%w; it said:\n%s", err, strings.Join(p.last, "\n"))
}

// read reads the output until the program ends.
func (p *process) read(r io.Reader, served chan<- struct{}) {
	defer close(p.done)
	waiting := true
	for s := bufio.NewScanner(r); s.Scan(); {
		p.last = append(p.last[max(0, len(p.last)-19):], s.Text())
		if waiting && serving.MatchString(s.Text()) {
			waiting = false
			served <- struct{}{}
		}
	}
	io.Copy(io.Discard, r) // after a line that was too long, so that the program does not block
	_ = p.cmd.Wait()       // its exit code does not matter: in the end it is killed
}

// end sends a signal and waits for the end. It does nothing if the process was not started
// or has ended.
func (p *process) end(with os.Signal) error {
	if p == nil {
		return nil
	}
	p.cmd.Process.Signal(with) // an error means that it has ended
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s did not end within %v of the signal %v", p.cmd.Path, patience, with)
	}
}

// cpu returns how much CPU time a process has used, in user mode and in the kernel.
func (p *process) cpu() (time.Duration, error) {
	var used unix.Timespec
	clock := int32(^p.cmd.Process.Pid)<<3 | 2 // as clock_getcpuclockid makes it
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("clock_gettime of process %d: %w", p.cmd.Process.Pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// memory returns the resident memory of a process, in bytes.
func (p *process) memory() (float64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0, fmt.Errorf("/proc/PID/statm: %w", err)
	}
	return float64(resident) * float64(os.Getpagesize()), nil
}

// growth returns by how many bytes the memory of a server grows while fn runs.
func (t *target) growth(fn func() error) (float64, error) {
	began, err := t.memory()
	if err == nil {
		err = fn()
	}
	if err != nil {
		return 0, err
	}
	ended, err := t.memory()
	return ended - began, err
}
