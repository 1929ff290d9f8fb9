package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clouddragon/internal/boottime"
	"clouddragon/internal/client"
)

// Exit codes, besides those of the command.
const (
	ExitUsage       = 64
	ExitUnavailable = 69
	ExitHeld        = 75 // held by another, granted too late, or lost
	ExitDenied      = 77
)

// Code returns the exit code for an error of a call to the server.
func Code(err error) int {
	switch {
	case errors.Is(err, client.ErrLate), client.Failed(err, client.Conflict):
		return ExitHeld
	case client.Failed(err, client.BadRequest):
		return ExitUsage
	case client.Failed(err, client.Denied):
		return ExitDenied
	}
	return ExitUnavailable
}

// keeper is the process that holds the lock. Its fields belong to the goroutine of run.
type keeper struct {
	spec    *Spec
	lock    *client.Lock
	command []string
	stderr  io.Writer
	front   *os.File
	parent  int // the front's pid

	orders   <-chan order
	signals  <-chan os.Signal
	children chan child
	alarm    *boottime.Alarm
	grants   chan grant
	renewals chan renewal

	stop     context.CancelFunc // cancels the calls in progress
	ctx      context.Context
	term     term
	token    int64
	held     bool
	renewing bool          // a renewal is in progress
	renewAt  time.Duration // when the next one is due
	fault    error         // the error of the last renewal, or nil

	pid     int // of the command, or 0
	mirror  bool
	witness witness
}

type grant struct {
	client.Grant
	err error
}

type renewal struct {
	end time.Duration
	err error
}

// Keep runs the keeper. fd is its end of the socket pair.
func Keep(fd int, command []string, stderr io.Writer) int {
	runtime.LockOSThread() // PDEATHSIG is sent when the thread that started the command ends
	unix.CloseOnExec(fd)
	// With the program's name, killall would reach both processes, which would look like a signal for the group.
	_ = os.WriteFile("/proc/self/comm", []byte(KeeperCommand), 0) // ps shows "exe" otherwise
	front, err := connection(fd)
	if err != nil || len(command) == 0 {
		fmt.Fprintf(stderr, "clouddragon lock: this command is for internal use\n")
		return ExitUsage
	}
	k := &keeper{front: front, command: command, stderr: stderr, parent: os.Getppid(), children: make(chan child, 16),
		grants: make(chan grant, 1), renewals: make(chan renewal, 1)}
	k.signals, _ = catch()
	orders := make(chan order, 16)
	k.orders = orders
	go receive(front, orders)
	first, ok := <-orders
	if !ok || first.Spec == nil {
		return ExitUsage // the front has ended
	}
	if err := k.begin(first.Spec); err != nil {
		k.say("%v", err)
		k.done(Outcome{Code: ExitUnavailable})
		return ExitUnavailable
	}
	k.done(k.run())
	return 0
}

// begin sets up the keeper.
func (k *keeper) begin(spec *Spec) error {
	if err := adopt(); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	server, err := client.New(spec.Server, spec.Token)
	if err != nil {
		return err
	}
	k.spec, k.lock = spec, &spec.Lock
	k.lock.Server = server
	k.term = newTerm(spec.Lock.Dur, spec.KillAfter)
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.alarm, err = boottime.NewAlarm()
	return err
}

// say prints one line on stderr. After that the command is not started.
func (k *keeper) say(format string, args ...any) {
	signal.Ignore(syscall.SIGTTOU) // a terminal may stop background processes that write to it
	fmt.Fprintf(k.stderr, "clouddragon lock: "+format+"\n", args...)
}

// tell sends a report. If the front has ended, the channel of orders shows it.
func (k *keeper) tell(r report) { _ = send(k.front, r) }

// done reports the outcome to the front. It continues a front that the keeper has stopped.
func (k *keeper) done(o Outcome) {
	if k.mirror {
		k.toFront(syscall.SIGCONT)
	}
	k.tell(report{Done: &o})
}

// toFront sends a signal to the front, if it is still our parent.
func (k *keeper) toFront(s syscall.Signal) {
	if os.Getppid() == k.parent {
		_ = syscall.Kill(k.parent, s) // it may have ended just now
	}
}

// run takes the lock and does the rest.
func (k *keeper) run() Outcome {
	go func() {
		g, err := k.lock.Take(k.ctx)
		k.grants <- grant{g, err}
	}()
	for {
		if k.held {
			if o := k.keepHeld(); o != nil {
				return *o
			}
		}
		var o *Outcome
		select {
		case g := <-k.grants:
			o = k.granted(g)
		case r := <-k.renewals:
			o = k.renewed(r)
		case m, ok := <-k.orders:
			o = k.ordered(m, ok)
		case s := <-k.signals:
			k.witness.saw(s.(syscall.Signal))
		case c := <-k.children:
			o = k.changed(c)
		case <-k.witness.due():
			for _, s := range k.witness.alone() {
				k.forward(s)
			}
		case <-k.alarm.C:
		}
		if o != nil {
			return *o
		}
	}
}

func (k *keeper) granted(g grant) *Outcome {
	if g.err != nil {
		k.say("not run: %v", g.err)
		return &Outcome{Code: Code(g.err)}
	}
	k.token, k.held, k.term.end = g.Token, true, g.End
	k.renewAt = k.term.renewAt()
	k.tell(report{Granted: true, End: k.term.end})
	return nil
}

// keepHeld renews the lock if that is due, ends the command if it is too late to renew, and sets the alarm.
func (k *keeper) keepHeld() *Outcome {
	now := boottime.Now()
	if now >= k.term.stopAt() {
		if k.fault == nil {
			k.fault = errors.New("it was not renewed in time")
		}
		return k.lost(k.fault)
	}
	if !k.renewing && now >= k.renewAt {
		k.renewing = true
		go func() {
			end, err := k.lock.Renew(k.ctx, k.token)
			k.renewals <- renewal{end, err}
		}()
	}
	next := k.term.stopAt()
	if !k.renewing {
		next = min(next, k.renewAt)
	}
	if err := k.alarm.Set(next); err != nil {
		return k.lost(err)
	}
	return nil
}

func (k *keeper) renewed(r renewal) *Outcome {
	k.renewing = false
	switch {
	case client.Failed(r.err, client.Conflict):
		return k.lost(r.err)
	case r.err != nil:
		k.fault = r.err
		k.renewAt = boottime.Now() + k.term.retry()
	default:
		k.fault, k.term.end = nil, max(k.term.end, r.end)
		k.renewAt = k.term.renewAt()
		if !k.mirror { // a stopped front does not read
			k.tell(report{End: k.term.end})
		}
	}
	return nil
}

// lost ends the command because the lock has expired or is about to.
func (k *keeper) lost(err error) *Outcome {
	k.stop()
	if k.pid == 0 {
		k.say("not run: the lock %q is lost: %v", k.lock.Name, err)
		return &Outcome{Code: ExitHeld}
	}
	k.say("the lock %q is lost, and the command is ended: %v", k.lock.Name, err)
	k.end()
	return &Outcome{Code: ExitHeld}
}

// end ends the command and its group.
func (k *keeper) end() {
	k.group().end(min(boottime.Now()+k.term.killAfter, k.term.killAt()), k.children, func(child) {})
}

func (k *keeper) group() group {
	if k.spec.Terminal {
		return group{}
	}
	return group{k.pid}
}

// ordered carries out an order. ok is false if the front has ended.
func (k *keeper) ordered(m order, ok bool) *Outcome {
	if !ok {
		if k.pid == 0 {
			return k.interrupted(syscall.SIGKILL)
		}
		k.stop()
		k.end()
		return &Outcome{}
	}
	if m.Go {
		return k.startCommand()
	}
	switch {
	case m.Signal == 0:
	case k.pid == 0 && m.Signal != syscall.SIGCONT:
		return k.interrupted(m.Signal)
	case k.pid != 0 && k.spec.Terminal:
		k.witness.passed(m.Signal)
	case k.pid != 0:
		k.forward(m.Signal)
	}
	if m.Signal == syscall.SIGCONT {
		k.mirror = false
		if k.held {
			k.tell(report{End: k.term.end})
		}
	}
	return nil
}

// interrupted handles a signal while there is no command to pass it on to.
func (k *keeper) interrupted(s syscall.Signal) *Outcome {
	k.stop()
	if !k.held {
		g := <-k.grants
		k.held, k.token = g.err == nil, g.Token
	}
	if k.held {
		k.giveBack()
	}
	return &Outcome{Code: 128 + int(s), Signal: s}
}

func (k *keeper) startCommand() *Outcome {
	if boottime.Now() >= k.term.stopAt() {
		return nil // keepHeld reports it
	}
	env := withEnv(os.Environ(), "CLOUDDRAGON_LOCK", k.lock.Name)
	env = withEnv(env, "CLOUDDRAGON_LOCK_TOKEN", strconv.FormatInt(k.token, 10))
	sys := &syscall.SysProcAttr{Setpgid: !k.spec.Terminal, Pdeathsig: syscall.SIGTERM}
	// The command inherits this thread's mask, so set the one that the front was started with.
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &k.spec.Mask, nil)
	if err == nil {
		k.pid, err = start(k.command, env, sys)
	}
	var e *startError
	if err != nil {
		k.stop()
		k.giveBack()
		k.say("%v", err)
		if errors.As(err, &e) {
			return &Outcome{Code: e.code}
		}
		return &Outcome{Code: exitCannotRun}
	}
	go wait(k.children)
	k.tell(report{Started: true, Group: k.group().id})
	return nil
}

// changed handles the end or the stop of a child. Children other than the command are
// descendants that have lost their parent.
func (k *keeper) changed(c child) *Outcome {
	if c.pid != k.pid {
		return nil
	}
	if c.status.Stopped() {
		k.mirror = true
		k.toFront(syscall.SIGSTOP)
		if !stopped(k.pid) { // it has already been continued, so continue the front too
			k.mirror = false
			k.toFront(syscall.SIGCONT)
		}
		return nil
	}
	k.stop()
	o := &Outcome{Code: c.status.ExitStatus()}
	if c.status.Signaled() {
		o.Code, o.Signal = 128+int(c.status.Signal()), c.status.Signal()
	}
	if boottime.Now() >= k.term.end {
		k.say("the lock %q was lost while the command ran: it had expired", k.lock.Name)
		return &Outcome{Code: ExitHeld}
	}
	if !k.giveBack() {
		return &Outcome{Code: ExitHeld}
	}
	return o
}

// giveBack unlocks. It returns false if the lock was lost before.
func (k *keeper) giveBack() bool {
	err := k.lock.GiveBack(context.Background(), k.token)
	if client.Failed(err, client.Conflict) {
		k.say("the lock %q was lost before the unlock: %v", k.lock.Name, err)
		return false
	}
	if err != nil {
		k.say("could not unlock %q, it stays locked until it expires: %v", k.lock.Name, err)
	}
	return true
}

// forward passes a signal on to the command.
func (k *keeper) forward(s syscall.Signal) {
	to := k.pid
	if !k.spec.Terminal {
		to = -k.pid
	}
	_ = syscall.Kill(to, s) // it may have ended just now
}
