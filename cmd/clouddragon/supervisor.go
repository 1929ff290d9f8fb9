package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/systemd"
)

// supervisor tells systemd the state of the server. A nil supervisor does nothing.
type supervisor struct {
	notifier *systemd.Notifier
	log      *slog.Logger
	failed   atomic.Bool // a failure to notify systemd has been logged
}

func newSupervisor(log *slog.Logger) *supervisor {
	return &supervisor{notifier: systemd.NewNotifier(os.Getenv), log: log}
}

// tell sends assignments. A failure does not stop the server.
func (s *supervisor) tell(assignments ...string) {
	if s == nil {
		return
	}
	if err := s.notifier.Send(assignments...); err != nil && s.failed.CompareAndSwap(false, true) {
		s.log.Warn("cannot tell systemd the state of the server", "err", err)
	}
}

// reloading tells systemd that a reload begins. READY=1 ends it.
func (s *supervisor) reloading() {
	now, err := systemd.Reloading()
	if err != nil {
		now = []string{"RELOADING=1"}
	}
	s.tell(now...)
}

// watchdog returns a ticker for systemd's watchdog, or nil if there is none.
func (s *supervisor) watchdog() <-chan time.Time {
	if s == nil {
		return nil
	}
	every, err := systemd.Watchdog(os.Getenv, os.Getpid())
	if err != nil {
		s.log.Warn("no watchdog", "err", err)
	}
	if every == 0 {
		return nil
	}
	return time.Tick(max(every/2, time.Millisecond))
}

// guard feeds systemd's watchdog at each tick unless the writer is stuck: it has calls to
// handle, but has neither begun nor ended a batch since the last tick. A writer that waits
// for the disk does not count as stuck, because a new process would wait for the same disk.
func (s *supervisor) guard(ticks <-chan time.Time, pulse func() commit.Pulse, waitsForDisk func() bool) {
	if ticks == nil {
		return
	}
	var last commit.Pulse
	for range ticks {
		now := pulse()
		stuck := now.Busy && !now.OnDisk && now == last
		last = now
		if stuck && !waitsForDisk() {
			s.log.Error("the writer is stuck: systemd's watchdog ends the server unless it recovers")
			continue
		}
		s.tell("WATCHDOG=1")
	}
}

// waitsForDisk reports whether a thread of the process waits for a disk, which is state D,
// uninterruptible sleep.
func waitsForDisk() bool { return anyUninterruptible("/proc/self/task") }

func anyUninterruptible(tasks string) bool {
	files, err := filepath.Glob(tasks + "/*/stat")
	if err != nil {
		return false
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the name, which is in parentheses and may itself have parentheses.
		if bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" D ")) {
			return true
		}
	}
	return false
}
