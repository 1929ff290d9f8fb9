package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setting is what the front tells the keeper first.
type setting struct {
	Terminal bool          // there is a controlling terminal
	Mask     unix.Sigset_t // the signals that were blocked when the front was started
}

// order is what the front tells the keeper.
type order struct {
	Setting *setting       `json:",omitempty"`
	Go      bool           `json:",omitempty"` // start the command
	Signal  syscall.Signal `json:",omitempty"` // the front got it
}

// report is what the keeper tells the front.
type report struct {
	End     time.Duration `json:",omitempty"` // the lock is held at least until then
	Granted *granted      `json:",omitempty"` // the lock is held, and the command can be started
	Group   int           `json:",omitempty"` // the command runs; its process group, or 0 on a terminal
	Started bool          `json:",omitempty"`
	Done    *Outcome      `json:",omitempty"` // the last report
}

// granted is what the front has to know of a lock that is held.
type granted struct {
	Name           []byte // any bytes, which a JSON string cannot hold
	Dur, KillAfter time.Duration
}

// Outcome is the end of the job.
type Outcome struct {
	Code   int            // the exit code
	Signal syscall.Signal // the signal that ended the command, or us while there was none; or 0
}

// sendLimit is how long a message may wait for room in the socket. There is no room if the
// other process has been stopped for very long.
const sendLimit = 100 * time.Millisecond

// pair returns two connected sockets that preserve message boundaries. Both are closed on exec.
func pair() (ours *os.File, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("socketpair: %w", err)
	}
	ours, err = connection(fds[0])
	return ours, fds[1], err
}

// connection makes a socket non-blocking and returns it as a file.
func connection(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("the socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// send sends one message.
func send(to *os.File, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := to.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err = to.Write(b)
	return err
}

// receive passes messages on, and closes the channel when the other process has ended.
func receive[T any](from *os.File, messages chan<- T) {
	defer close(messages)
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if errors.Is(err, syscall.ECONNRESET) {
			continue // the other process ended with messages of ours unread; its own still come
		}
		if err != nil {
			return
		}
		var m T
		if json.Unmarshal(b[:n], &m) != nil {
			return // not ours
		}
		messages <- m
	}
}
