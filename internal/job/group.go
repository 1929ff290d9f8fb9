package job

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clouddragon/internal/boottime"
)

const (
	// pollInterval is how often a group that is being ended is checked, in addition to each
	// time a child ends.
	pollInterval = 20 * time.Millisecond
	// killWait is how long to wait after KILL, because a process can be stuck in the kernel.
	killWait = 2 * time.Second
)

// group are the processes to end: a process group, or, if id is 0, all
// descendants of this process in its session.
type group struct{ id int }

// signal sends a signal to all of them. Errors are ignored: a process may have ended, or may
// belong to another user.
func (g group) signal(s syscall.Signal) {
	if g.id != 0 {
		_ = syscall.Kill(-g.id, s) // as said
		return
	}
	for _, pid := range descendants(os.Getpid()) {
		_ = syscall.Kill(pid, s) // as said
	}
}

// alive reports whether one of them has not ended.
func (g group) alive() bool {
	if g.id == 0 {
		return len(descendants(os.Getpid())) > 0
	}
	return syscall.Kill(-g.id, 0) != syscall.ESRCH
}

// end sends TERM, and KILL at the given time if one is still alive. It returns when all have
// ended. It passes each child that ends to ended.
func (g group) end(killAt time.Duration, children <-chan child, ended func(child)) {
	g.signal(syscall.SIGTERM)
	g.signal(syscall.SIGCONT) // a stopped process cannot handle TERM
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	giveUp := max(killAt, boottime.Now()) + killWait
	for g.alive() && boottime.Now() < giveUp {
		if boottime.Now() >= killAt {
			g.signal(syscall.SIGKILL) // repeatedly, because one may have forked meanwhile
		}
		select {
		case c, ok := <-children:
			if !ok {
				children = nil
				continue
			}
			ended(c)
		case <-ticker.C:
		}
	}
}

// child is a change of a child's state.
type child struct {
	pid    int
	status syscall.WaitStatus
}

// wait reports the changes of all children until there are none left. No other code may wait
// for children.
func wait(children chan<- child) {
	defer close(children)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return
		}
		children <- child{pid, status}
	}
}

// process is what /proc has about a process.
type process struct {
	parent, session int
	state           byte // such as R, S, T for stopped, Z for ended
}

// stat reads /proc/PID/stat.
func stat(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name is in parentheses and may contain anything, even parentheses.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 4 {
		return process{}, false
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	session, err2 := strconv.Atoi(string(fields[3]))
	return process{parent, session, fields[0][0]}, err1 == nil && err2 == nil
}

// stopped reports whether a process is stopped.
func stopped(pid int) bool {
	p, ok := stat(pid)
	return ok && (p.state == 'T' || p.state == 't')
}

// descendants returns the living processes below a process that are in our session.
func descendants(root int) []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	all := map[int]process{}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := stat(pid); ok {
				all[pid] = p
			}
		}
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return nil
	}
	var found []int
	for pid, p := range all {
		if p.session != session || p.state == 'Z' || p.state == 'X' {
			continue
		}
		for up := p.parent; up > 0; up = all[up].parent {
			if up == root {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}
