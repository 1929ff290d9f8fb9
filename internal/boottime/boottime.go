// Package boottime is a clock that goes on while the machine sleeps, and that
// nobody can set.
package boottime

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since the machine was started.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("CLOCK_BOOTTIME: %v", err)) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// Alarm rings at a time of this clock, also if the machine slept past it.
type Alarm struct {
	C     <-chan struct{} // has room for one ring
	timer *os.File
	fd    int
	done  chan struct{} // closed when the goroutine has ended
}

// NewAlarm returns an alarm that is not set. Close ends its goroutine.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	c := make(chan struct{}, 1)
	a := &Alarm{C: c, timer: os.NewFile(uintptr(fd), "timerfd"), fd: fd, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		var b [8]byte
		for {
			if _, err := a.timer.Read(b[:]); err != nil {
				return
			}
			if binary.NativeEndian.Uint64(b[:]) > 0 {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
	}()
	return a, nil
}

// Set makes the alarm ring at a time, once, instead of the one that was set before.
func (a *Alarm) Set(at time.Duration) error {
	value := unix.NsecToTimespec(int64(max(at, 1)))
	return unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: value}, nil)
}

// Close ends the alarm.
func (a *Alarm) Close() error { return a.timer.Close() }
