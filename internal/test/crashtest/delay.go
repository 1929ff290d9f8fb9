package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A delayed link goes through this process: one of its ends is moved to a bridge of its own, and
// each of the two bridges gets a TAP device. What one device sends is kept for a while and
// then written to the other one, in the same order.
//
//	a ── bridge late.N ── tap ══ (delay) ══ tap ── bridge a-b ── b

// tunDevice is what TAP devices are made with.
const tunDevice = "/dev/net/tun"

// slowLink is a link that is delayed.
type slowLink struct {
	t       testing.TB
	link    string
	port    string // the end that was moved
	detour  string // the bridge to which it was moved
	names   [2]string
	taps    [2]*os.File
	readers sync.WaitGroup
	writers sync.WaitGroup
	lanes   [2]chan frame

	least, most time.Duration
	prompt      atomic.Bool   // nothing is delayed any more
	flowing     chan struct{} // closed once frames are delivered
	onTheWay    atomic.Int64  // frames that were read and not yet written
	carried     atomic.Int64  // frames that were written
}

type frame struct {
	due  time.Time
	data []byte
}

// laneSize is how many frames a link keeps. It loses those that do not fit, as a switch does.
const laneSize = 1 << 16

var slowLinks atomic.Int64 // names the devices

// delayLink delays what the link between two nodes carries by least to most, each way.
// If stalled is set, nothing is delivered before mend, and then everything is.
func delayLink(t testing.TB, x, y string, least, most time.Duration, stalled bool) *slowLink {
	t.Helper()
	n := slowLinks.Add(1)
	l := &slowLink{t: t, link: linkOf(x, y), port: x + "." + y, detour: fmt.Sprintf("late.%d", n), least: least, most: most, flowing: make(chan struct{})}
	if !stalled {
		close(l.flowing)
	}
	l.ip("link add %s type bridge", l.detour)
	l.ip("link set %s up", l.detour)
	for i, bridge := range []string{l.detour, l.link} {
		l.names[i] = fmt.Sprintf("tap.%d.%d", n, i)
		tap, err := openTAP(hub, l.names[i])
		if err != nil {
			t.Fatal(err)
		}
		l.taps[i], l.lanes[i] = tap, make(chan frame, laneSize)
		l.ip("link set %s master %s up", l.names[i], bridge)
	}
	for i := range l.taps {
		l.readers.Go(func() { l.read(l.taps[i], l.lanes[i]) })
		l.writers.Go(func() { l.write(l.taps[1-i], l.lanes[i]) })
	}
	l.ip("link set %s master %s", l.port, l.detour)
	return l
}

// ip runs the program in the namespace of the bridges.
func (l *slowLink) ip(format string, args ...any) {
	l.t.Helper()
	if err := ip(append([]string{"-n", hub}, strings.Fields(fmt.Sprintf(format, args...))...)...); err != nil {
		l.t.Fatal(err)
	}
}

// read keeps what a device sends.
func (l *slowLink) read(from *os.File, lane chan<- frame) {
	defer close(lane)
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			l.t.Errorf("read from a TAP device of the link %s: %v", l.link, err)
			return
		}
		f := frame{due: time.Now().Add(l.least + rand.N(l.most-l.least+1)), data: append([]byte(nil), buf[:n]...)}
		l.onTheWay.Add(1)
		select {
		case lane <- f:
		default:
			l.onTheWay.Add(-1)
		}
	}
}

// write delivers what was kept, in order.
func (l *slowLink) write(to *os.File, lane <-chan frame) {
	for f := range lane {
		<-l.flowing
		if !l.prompt.Load() {
			time.Sleep(time.Until(f.due))
		}
		// A frame for a link that is cut is lost.
		if _, err := to.Write(f.data); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EIO) {
			l.t.Errorf("write to a TAP device of the link %s: %v", l.link, err)
		}
		l.carried.Add(1)
		l.onTheWay.Add(-1)
	}
}

// mend delivers what was kept, and then connects the two nodes directly again.
func (l *slowLink) mend() {
	l.t.Helper()
	l.prompt.Store(true)
	select {
	case <-l.flowing:
	default:
		close(l.flowing)
	}
	if err := eventually("a delayed link delivers what it kept", func() bool { return l.onTheWay.Load() == 0 }); err != nil {
		l.t.Fatal(err)
	}
	if l.carried.Load() == 0 {
		l.t.Logf("NOTHING WAS DELAYED: nothing was sent over the link %s", l.link)
	}
	l.ip("link set %s master %s", l.port, l.link)
	for _, tap := range l.taps {
		if err := tap.Close(); err != nil { // the device ends with it
			l.t.Error(err)
		}
	}
	l.readers.Wait()
	l.writers.Wait()
	l.ip("link del %s", l.detour)
}

// openTAP makes a TAP device in a namespace: that of the thread that opens it. The thread has to go
// back, since servers that it has started end with it.
func openTAP(node, name string) (f *os.File, err error) {
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer here.Close()
	there, err := os.Open("/run/netns/" + node)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("setns %s: %w", node, err)
	}
	defer func() {
		if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("setns back from %s: %w", node, back))
			return // the thread stays locked
		}
		runtime.UnlockOSThread()
	}()
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the TAP device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), tunDevice), nil
}
