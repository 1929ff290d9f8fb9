package front

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A client that hangs up while its call waits must leave the queue at once. net/http
// notices a hang-up by reading ahead, but stops at the first byte. So it misses a client
// that sends its next request and then hangs up. Therefore epoll watches the socket
// itself while a call waits. A client that closes only its own side, as nc -N does, counts
// as gone, because it looks the same.

// hangup has the events of a client that has hung up.
const hangup = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// Gone reports whether the client has hung up, whatever it sent before.
func (c *Conn) Gone() bool {
	gone := false
	err := c.control(func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			_, err := unix.Poll(fds, 0)
			if err == unix.EINTR {
				continue
			}
			gone = fds[0].Revents&(hangup|unix.POLLNVAL) != 0
			return err
		}
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return false
	}
	return gone || err != nil
}

// Watch calls gone once when the client hangs up or has hung up already. After stop has
// returned, gone is not called any more. gone must not block.
func (c *Conn) Watch(gone func()) (stop func(), err error) {
	w, err := theWatcher()
	if err != nil {
		return nil, err
	}
	id := w.add(gone)
	err = c.control(func(fd int) error {
		e := &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(id), Pad: int32(id >> 32)}
		return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, e)
	})
	if err != nil {
		w.remove(id)
		return nil, fmt.Errorf("watching a connection: %w", err)
	}
	return func() {
		w.remove(id)
		// If the connection is closed, the kernel has removed it already.
		_ = c.control(func(fd int) error { return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil) })
	}, nil
}

// control calls f with the descriptor of the socket.
func (c *Conn) control(f func(fd int) error) error {
	if c.socket == nil {
		return errors.ErrUnsupported
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// watcher waits for hang-ups of all watched connections. It and its goroutine live as
// long as the process.
type watcher struct {
	epoll int

	mu      sync.Mutex // guards what follows; held while a gone function runs
	last    int64
	watches map[int64]func()
}

// theWatcher returns the watcher of the process. The first call makes it. If that fails
// for lack of a descriptor, the next call tries again.
func theWatcher() (*watcher, error) {
	watcherMu.Lock()
	defer watcherMu.Unlock()
	if oneWatcher != nil {
		return oneWatcher, nil
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	oneWatcher = &watcher{epoll: epoll, watches: make(map[int64]func())}
	go oneWatcher.run()
	return oneWatcher, nil
}

var (
	watcherMu  sync.Mutex // guards oneWatcher
	oneWatcher *watcher
)

func (w *watcher) add(gone func()) (id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.watches[w.last] = gone
	return w.last
}

func (w *watcher) remove(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watches, id)
}

func (w *watcher) run() {
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // a mistake of this package
		}
		for _, e := range events[:max(0, n)] {
			w.hungUp(int64(uint32(e.Fd)) | int64(e.Pad)<<32)
		}
	}
}

func (w *watcher) hungUp(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if gone := w.watches[id]; gone != nil {
		delete(w.watches, id)
		gone()
	}
}
