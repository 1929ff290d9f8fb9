package job

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on to the command.
var forwarded = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
}

// jobControl are the signals that stop and continue a job.
var jobControl = []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT}

// caught returns the signals that we catch: those above, except those that were ignored when
// we were started. These stay ignored, here and in the command.
func caught() []os.Signal {
	// A write to a broken pipe must not end us before the command.
	all := []os.Signal{syscall.SIGPIPE}
	for _, s := range append(append([]syscall.Signal{}, forwarded...), jobControl...) {
		if !ignored(s) {
			all = append(all, s)
		}
	}
	return all
}

// catch starts to catch signals and returns the channel that gets them.
func catch() (<-chan os.Signal, []os.Signal) {
	c, all := make(chan os.Signal, 64), caught()
	signal.Notify(c, all...)
	return c, all
}

// ignored reports whether this process ignores a signal. The Go runtime leaves HUP, INT and the
// signals of job control as they are.
func ignored(s syscall.Signal) bool {
	var now action
	setAction(s, nil, &now)
	return now.handler == sigIgn
}

// maskOf returns the set of these signals.
func maskOf(signals []os.Signal) *unix.Sigset_t {
	var set unix.Sigset_t
	for _, s := range signals {
		if n := s.(syscall.Signal); n != syscall.SIGPIPE {
			set.Val[0] |= 1 << (n - 1)
		}
	}
	return &set
}

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

// adopt makes this process a child subreaper: descendants stay below it when their parents
// end.
func adopt() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

const sigIgn = 1 // the handler of a signal that is ignored

// action is struct sigaction of the kernel.
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// defaultAction makes a signal do what it does by default and returns what it
// did before. signal.Reset does not do that for the signals of job control.
func defaultAction(s syscall.Signal) action {
	var before action
	setAction(s, &action{}, &before)
	return before
}

// restore undoes defaultAction.
func restore(s syscall.Signal, before action) { setAction(s, &before, nil) }

func setAction(s syscall.Signal, to, before *action) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(before)), 8, 0, 0)
	if errno != 0 {
		panic("rt_sigaction: " + errno.Error()) // only for a signal that cannot be caught
	}
}

// raise sends a signal to this thread, so that it is handled before raise returns.
func raise(s syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, before unix.Sigset_t
	set.Val[0] = 1 << (s - 1)
	if unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, &before) != nil {
		return
	}
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), s)          // it is this thread
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) // it was so before
}
