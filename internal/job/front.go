package job

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"clouddragon/internal/boottime"
)

// Commands of this program. Command is for users and runs Run. KeeperCommand runs Keep; the
// number of the socket and the arguments of Command follow it.
const (
	Command       = "lock"
	KeeperCommand = "lock-keeper"
)

// front is the process that the user started. Its fields belong to the goroutine of run.
type front struct {
	stderr io.Writer
	socket *os.File
	keeper int // its pid

	signals <-chan os.Signal
	reports chan report
	alarm   *boottime.Alarm
	lock    string // its name
	term    term
	setting setting
	started bool           // the command may be running
	last    syscall.Signal // passed on last
	suspect bool           // the alarm fired, and no renewal has been reported since
	group   group          // of the command
}

// Run runs a command under a lock and returns the exit code. It leaves the arguments to the
// keeper.
func Run(args []string, stderr io.Writer) int {
	f := &front{stderr: stderr, reports: make(chan report, 16)}
	if err := f.begin(args); err != nil {
		fmt.Fprintf(stderr, "clouddragon lock: not run: %v\n", err)
		return ExitUnavailable
	}
	defer f.socket.Close()
	defer f.alarm.Close()
	o := f.run()
	if f.setting.Terminal && o.Signal == syscall.SIGINT {
		f.die(o.Signal)
	}
	return o.Code
}

// begin starts the keeper.
func (f *front) begin(args []string) (err error) {
	f.setting.Terminal = hasTerminal()
	if err := adopt(); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if f.alarm, err = boottime.NewAlarm(); err != nil {
		return err
	}
	var theirs int
	if f.socket, theirs, err = pair(); err != nil {
		return err
	}
	var all []os.Signal
	f.signals, all = catch()
	if f.keeper, err = startKeeper(theirs, args, maskOf(all), &f.setting); err != nil {
		return fmt.Errorf("the second process: %w", err)
	}
	if err := unix.Close(theirs); err != nil {
		return fmt.Errorf("the socket: %w", err)
	}
	go receive(f.socket, f.reports)
	return send(f.socket, order{Setting: &f.setting})
}

// startKeeper starts the second process. The signals that the process will catch are blocked
// in it at first, except HUP, INT, QUIT and TERM, which the runtime unblocks. The setting gets
// the signals that were blocked before.
func startKeeper(fd int, args []string, block *unix.Sigset_t, s *setting) (pid int, err error) {
	runtime.LockOSThread() // the new process inherits this thread's mask
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, block, &s.Mask); err != nil {
		return 0, err
	}
	// The socket keeps its number in the keeper, so that files inherited from the user keep theirs.
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	if err == nil {
		argv := append([]string{os.Args[0], KeeperCommand, strconv.Itoa(fd)}, args...)
		pid, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
			Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: !s.Terminal},
		})
	}
	if err2 := unix.PthreadSigmask(unix.SIG_SETMASK, &s.Mask, nil); err == nil {
		err = err2
	}
	return pid, err
}

// run passes signals on until the keeper reports the outcome.
func (f *front) run() Outcome {
	for {
		select {
		case r, ok := <-f.reports:
			if !ok {
				return f.alone()
			}
			if r.Done != nil {
				f.reap()
				return *r.Done
			}
			f.heard(r)
		case s := <-f.signals:
			f.got(s.(syscall.Signal))
		case <-f.alarm.C:
			f.overdue()
		}
	}
}

// reap waits for the keeper's end.
func (f *front) reap() {
	for {
		if _, err := syscall.Wait4(f.keeper, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

func (f *front) tell(o order) { _ = send(f.socket, o) } // if the keeper has ended, the channel of reports shows it

func (f *front) heard(r report) {
	if g := r.Granted; g != nil {
		f.lock, f.term = string(g.Name), newTerm(g.Dur, g.KillAfter)
	}
	if r.End != 0 {
		f.term.end, f.suspect = r.End, false
		_ = f.alarm.Set(f.term.killAt()) // without the alarm only a hanging keeper goes unnoticed
	}
	if r.Granted != nil {
		f.started = true
		f.tell(order{Go: true})
	}
	if r.Started {
		f.group = group{r.Group}
	}
}

// got passes a signal on.
func (f *front) got(s syscall.Signal) {
	switch {
	case s == syscall.SIGPIPE, s == syscall.SIGTTIN, s == syscall.SIGTTOU:
		// The command gets this signal from the terminal.
	case s == syscall.SIGTSTP && !f.started:
		f.stopHere()
	default:
		if s != syscall.SIGCONT && s != syscall.SIGTSTP {
			f.last = s
		}
		f.tell(order{Signal: s})
	}
}

// stopHere stops this process as if it had not caught the signal.
func (f *front) stopHere() {
	caught := defaultAction(syscall.SIGTSTP)
	raise(syscall.SIGTSTP)
	restore(syscall.SIGTSTP, caught) // the process has been continued
}

// die ends this process by a signal, so that the shell that started us stops its own work.
func (f *front) die(s syscall.Signal) {
	signal.Reset(s)
	raise(s)
}

// overdue kills a keeper that should have ended the command by now. The first alarm only
// sets another one, so that reports that arrived while this process was stopped are read
// first.
func (f *front) overdue() {
	if f.suspect {
		_ = syscall.Kill(f.keeper, syscall.SIGKILL) // alone does the rest
		return
	}
	f.suspect = true
	_ = f.alarm.Set(boottime.Now() + f.term.margin()/2) // as in heard
}

// alone ends the command after the keeper was killed.
func (f *front) alone() Outcome {
	signal.Ignore(syscall.SIGTTOU) // a terminal may stop background processes that write to it
	children := make(chan child, 16)
	go wait(children)
	if !f.started && f.last != 0 {
		// A signal for the group ended the keeper before it could catch signals.
		return Outcome{Code: 128 + int(f.last), Signal: f.last}
	}
	if !f.started {
		fmt.Fprintf(f.stderr, "clouddragon lock: not run: the process that asked for the lock was killed\n")
		return Outcome{Code: ExitUnavailable}
	}
	fmt.Fprintf(f.stderr, "clouddragon lock: the process that renewed the lock %q was killed, and the command is ended\n", f.lock)
	f.group.end(min(boottime.Now()+f.term.killAfter, f.term.killAt()), children, func(child) {})
	return Outcome{Code: ExitHeld}
}
