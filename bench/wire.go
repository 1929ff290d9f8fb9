package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wire is a connection of a generator, with at most one request on its way.
type wire struct {
	fd         int
	busy       bool
	due        time.Duration // when the request was to be sent
	head, body []byte        // of the request: what is not written yet
	buf        []byte        // for heads
	in         []byte        // of the answer: what has come before its head was whole
	left       int           // of the answer: bytes to come behind its head; -1: the head is not whole
}

const (
	joined   = 16 << 10  // a body of up to so many bytes is sent with its head
	readOnce = 256 << 10 // bytes
)

// scratch takes what is read and not looked at. It belongs to the one thread
// that has a generator.
var scratch = make([]byte, readOnce)

func connect(to netip.AddrPort) (_ *wire, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return nil, err
	}
	return &wire{fd: fd, in: make([]byte, 0, 4096)}, unix.SetNonblock(fd, true)
}

// ask takes a request to send. A small body joins the head in one packet.
func (w *wire) ask(head, body []byte, due time.Duration) {
	if len(body) <= joined {
		head, body = append(head, body...), nil
	}
	w.buf = head
	w.head, w.body, w.due = head, body, due
	w.busy, w.in, w.left = true, w.in[:0], -1
}

// flush writes what the socket takes.
func (w *wire) flush() error {
	for _, part := range []*[]byte{&w.head, &w.body} {
		for len(*part) > 0 {
			n, err := unix.Write(w.fd, *part)
			switch {
			case err == unix.EAGAIN:
				return nil
			case err == unix.EINTR:
			case err != nil:
				return fmt.Errorf("write: %w", err)
			default:
				*part = (*part)[n:]
			}
		}
	}
	return nil
}

// receive reads what has come, and says whether the answer is whole.
func (w *wire) receive(answer func([]byte) (head, body int, err error)) (done bool, err error) {
	for {
		into := scratch
		if w.left < 0 {
			into = w.in[len(w.in):cap(w.in)]
			if len(into) == 0 {
				return false, errors.New("the head of an answer is too long")
			}
		}
		n, err := unix.Read(w.fd, into)
		switch {
		case err == unix.EAGAIN:
			return false, nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, fmt.Errorf("read: %w", err)
		case n == 0:
			return false, io.ErrUnexpectedEOF
		}
		if w.left < 0 {
			w.in = w.in[:len(w.in)+n]
			head, body, err := answer(w.in)
			if err != nil {
				return false, err
			}
			if head == 0 {
				continue
			}
			w.left = head + body - len(w.in)
		} else {
			w.left -= n
		}
		if w.left < 0 {
			return false, errors.New("an answer that nobody asked for")
		}
		if w.left == 0 {
			w.busy = false
			return true, nil
		}
	}
}

// epollWait is epoll_pwait2, which counts in ns where epoll_wait counts in ms.
func epollWait(epoll int, events []unix.EpollEvent, timeout time.Duration) (int, error) {
	t := unix.NsecToTimespec(int64(timeout))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&t)), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return int(n), nil
}
