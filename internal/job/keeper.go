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
)

// keeper is the process that holds the lock. Its fields belong to the goroutine of run.
type keeper struct {
	spec    *Spec
	setting *setting
	lock    Lock
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

// Keep runs the keeper. fd is its end of the socket pair. prepare returns what to do,
// or an exit code if that is nothing; it may wait, for a file that it reads.
func Keep(fd int, prepare func() (*Spec, int), stderr io.Writer) int {
	unix.CloseOnExec(fd)
	// With the program's name, killall would reach both processes, which would look like a signal for the group.
	_ = os.WriteFile("/proc/self/comm", []byte(KeeperCommand), 0) // ps shows "exe" otherwise
	front, err := connection(fd)
	if err != nil {
		fmt.Fprintf(stderr, "clouddragon lock: this command is for internal use\n")
		return ExitUsage
	}
	k := &keeper{front: front, stderr: stderr, parent: os.Getppid(), children: make(chan child, 16),
		grants: make(chan grant, 1), renewals: make(chan renewal, 1)}
	k.signals, _ = catch()
	orders := make(chan order, 16)
	k.orders = orders
	go receive(front, orders)
	if o := k.prepare(prepare); o != nil {
		k.done(*o)
		return o.Code
	}
	if err := k.begin(); err != nil {
		k.say("%v", err)
		k.done(Outcome{Code: ExitUnavailable})
		return ExitUnavailable
	}
	k.done(k.run())
	return 0
}

// prepare gets the setting from the front and the spec from a function. It returns an outcome
// if there is nothing to do.
func (k *keeper) prepare(prepare func() (*Spec, int)) *Outcome {
	codes := make(chan int, 1)
	go func() {
		var code int
		k.spec, code = prepare()
		codes <- code
	}()
	for prepared := false; !prepared || k.setting == nil; {
		select {
		case code := <-codes:
			if k.spec == nil {
				return &Outcome{Code: code}
			}
			prepared = true
		case m, ok := <-k.orders:
			if !ok {
				return &Outcome{Code: ExitUsage} // the front has ended
			}
			if m.Setting != nil {
				k.setting = m.Setting
			}
			if s := m.Signal; s != 0 && s != syscall.SIGCONT {
				return &Outcome{Code: 128 + int(s), Signal: s}
			}
		}
	}
	return nil
}

// begin sets up the keeper.
func (k *keeper) begin() (err error) {
	if err := adopt(); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	k.lock = k.spec.Lock
	k.term = newTerm(k.spec.Dur, k.spec.KillAfter)
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
		token, end, err := k.lock.Take(k.ctx)
		k.grants <- grant{token, end, err}
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
			for len(k.signals) > 0 { // they came while this process did not run
				k.witness.saw((<-k.signals).(syscall.Signal))
			}
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
		return &Outcome{Code: k.lock.Code(g.err)}
	}
	k.token, k.held, k.term.end = g.token, true, g.end
	k.renewAt = k.term.renewAt()
	k.tell(report{Granted: &granted{[]byte(k.spec.Name), k.spec.Dur, k.spec.KillAfter}, End: k.term.end})
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
	case r.err != nil && k.lock.Code(r.err) == ExitHeld:
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
		k.say("not run: the lock %q is lost: %v", k.spec.Name, err)
		return &Outcome{Code: ExitHeld}
	}
	k.say("the lock %q is lost, and the command is ended: %v", k.spec.Name, err)
	k.end()
	return &Outcome{Code: ExitHeld}
}

// end ends the command and its group.
func (k *keeper) end() {
	k.group().end(min(boottime.Now()+k.term.killAfter, k.term.killAt()), k.children, func(child) {})
}

func (k *keeper) group() group {
	if k.setting.Terminal {
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
	case k.pid != 0 && k.setting.Terminal:
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
		k.held, k.token = g.err == nil, g.token
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
	env := withEnv(os.Environ(), "CLOUDDRAGON_LOCK", k.spec.Name)
	env = withEnv(env, "CLOUDDRAGON_LOCK_TOKEN", strconv.FormatInt(k.token, 10))
	sys := &syscall.SysProcAttr{Setpgid: !k.setting.Terminal, Pdeathsig: syscall.SIGTERM}
	var err error
	started := make(chan struct{})
	go func() { // PDEATHSIG is sent when the thread that started the command ends, so this one stays
		runtime.LockOSThread()
		// The command inherits this thread's mask, so set the one that the front was started with.
		err = unix.PthreadSigmask(unix.SIG_SETMASK, &k.setting.Mask, nil)
		if err == nil {
			k.pid, err = start(k.spec.Command, env, sys)
		}
		close(started)
		select {}
	}()
	<-started
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
		k.say("the lock %q was lost while the command ran: it had expired", k.spec.Name)
		return &Outcome{Code: ExitHeld}
	}
	if !k.giveBack() {
		return &Outcome{Code: ExitHeld}
	}
	return o
}

// giveBack unlocks. It returns false if the lock was lost before.
func (k *keeper) giveBack() bool {
	err := k.lock.GiveBack(k.token)
	if err != nil && k.lock.Code(err) == ExitHeld {
		k.say("the lock %q was lost before the unlock: %v", k.spec.Name, err)
		return false
	}
	if err != nil {
		k.say("could not unlock %q, it stays locked until it expires: %v", k.spec.Name, err)
	}
	return true
}

// forward passes a signal on to the command.
func (k *keeper) forward(s syscall.Signal) {
	to := k.pid
	if !k.setting.Terminal {
		to = -k.pid
	}
	_ = syscall.Kill(to, s) // it may have ended just now
}
