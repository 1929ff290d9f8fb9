package front

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A loop serves plain requests of many connections on one goroutine:
//
//	wait until sockets can be read or written, or something submitted is done
//	answer what is done, in the order of each connection's requests
//	read, parse and start requests
//	submit what was started, which commits it, and begin again
//
// What may take long, Start and Submit, is guarded: if it takes too long, the deputy
// becomes the owner of the loop and goes on. The goroutine that was held up posts
// what has come of it, and ends.
type loop struct {
	l       *Listener
	plain   Plain
	log     *slog.Logger
	context context.Context // of all requests
	epoll   int
	wakeup  int // an eventfd

	// turn is odd while the owner is in a guarded call, and grows with each of them.
	// Whoever makes it even is the owner.
	turn   atomic.Uint64
	parked atomic.Bool   // the deputy waits on alert
	full   atomic.Bool   // there was no room for another connection
	count  atomic.Int32  // of the connections, with those that were given; other loops look at it
	alert  chan struct{} // has room for a token

	mu       sync.Mutex  // guards what follows
	posted   []*Exchange // are the loop's again
	asleep   bool        // the owner waits for events, and has to be woken up
	closing  bool        // no more connections are accepted
	stopping bool        // connections without a request are closed
	killed   bool        // all connections are closed
	resume   bool        // there is room for another connection
	given    []int       // descriptors that another loop has accepted for this one

	// Of the owner.
	events     []unix.EpollEvent
	scratch    []byte    // for what is read
	conns      []*client // by descriptor
	serial     uint32    // of the newest of them
	runnable   []*client // have something to do
	taken      []*Exchange
	batch      []*Exchange // to be submitted
	submitting bool        // the guarded call is Submit
	spare      []*Exchange
	known      [fields]string // the headers of the last request
	names      []string
	out        []byte // for answers
	now        time.Time
	date       []byte // for the header, of dateAt
	dateAt     int64
	swept      time.Time
	pace       pace
	stopSeen   bool          // a sweep has seen stopping
	accepts    bool          // the listener's descriptor is watched
	listener   int           // a descriptor; -1: closed
	deaf       chan struct{} // closed once the listener is closed
	ended      chan struct{}
}

const (
	// readSize is what a connection may leave behind in memory when it is handed over.
	readSize    = 16 << 10
	outSize     = 64 << 10
	maxSpare    = 256
	wakeupEvent = -1
	acceptEvent = -2
)

func newLoop(l *Listener, listener int, ctx context.Context) (*loop, error) {
	p := &loop{
		l: l, plain: l.loop.Plain, log: l.o.Log, context: ctx, listener: listener,
		alert: make(chan struct{}, 1), deaf: make(chan struct{}), ended: make(chan struct{}), now: time.Now(),
		events: make([]unix.EpollEvent, 256), scratch: make([]byte, readSize), out: make([]byte, 0, outSize),
	}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if p.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(p.epoll))
	}
	// Edge-triggered, so the counter need not be read.
	err = p.watch(unix.EPOLL_CTL_ADD, p.wakeup, unix.EPOLLIN|unix.EPOLLET, wakeupEvent)
	if err == nil {
		err = p.watchListener(true)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(p.epoll), unix.Close(p.wakeup))
	}
	return p, nil
}

func (p *loop) start() {
	go p.run()
	go p.deputy()
}

// watch tells epoll of a descriptor, as an event's first half, and its serial.
func (p *loop) watch(op, fd int, events uint32, id int32) error {
	e := unix.EpollEvent{Events: events, Fd: id, Pad: int32(p.serial)}
	if err := unix.EpollCtl(p.epoll, op, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// run owns the loop until it ends, or until a guarded call takes too long.
func (p *loop) run() {
	for {
		if !p.step() {
			return
		}
		if p.over() {
			p.end()
			return
		}
		p.wait()
	}
}

// step does what there is to do. It returns false if the loop has another owner.
func (p *loop) step() bool {
	p.take()
	for len(p.runnable) > 0 {
		n := len(p.runnable) - 1
		s := p.runnable[n]
		p.runnable = p.runnable[:n]
		s.runnable = false
		if !p.process(s) {
			return false
		}
	}
	return p.submit()
}

// take answers what was posted.
func (p *loop) take() {
	p.mu.Lock()
	p.taken, p.posted = p.posted, p.taken[:0]
	p.mu.Unlock()
	for i, x := range p.taken {
		p.taken[i] = nil
		s := x.conn // which a started exchange may lose
		if x.pending {
			x.verdict, x.pending, x.ready = p.plain.Finish(x), false, true
			s.pending--
		} else {
			p.started(x)
		}
		p.wakeUp(s)
	}
}

// wakeUp notes that there is something to do for s.
func (p *loop) wakeUp(s *client) {
	if !s.runnable {
		s.runnable = true
		p.runnable = append(p.runnable, s)
	}
}

// post gives an exchange back to the loop. Any goroutine may call it.
func (p *loop) post(x *Exchange) { p.tell(func() { p.posted = append(p.posted, x) }) }

// tell changes, by f, what the owner looks at, and wakes it up.
func (p *loop) tell(f func()) {
	p.mu.Lock()
	f()
	wake := p.asleep
	p.asleep = false
	if wake {
		// The descriptor is not closed meanwhile.
		p.wake()
	}
	p.mu.Unlock()
}

func (p *loop) wake() {
	one := [8]byte{1}
	// The counter is never read and cannot be full.
	if _, err := unix.Write(p.wakeup, one[:]); err != nil {
		panic(fmt.Sprintf("front: eventfd: %v", err))
	}
}

// submit submits what was started.
func (p *loop) submit() bool {
	if len(p.batch) == 0 {
		return true
	}
	xs := p.batch
	p.batch, p.submitting = nil, true
	lead := p.pace.mayLead()
	began := time.Now()
	if !p.guard(func() { p.plain.Submit(xs, lead) }) {
		return false
	}
	p.submitting = false
	if lead {
		p.pace.led(time.Since(began))
	}
	clear(xs)
	p.batch = xs[:0]
	return true
}

// wait waits for events, and notes which sockets have something to do.
func (p *loop) wait() {
	timeout := 0
	p.mu.Lock()
	if len(p.posted) == 0 && len(p.given) == 0 {
		timeout = p.untilSweep()
		p.asleep = timeout != 0
	}
	p.mu.Unlock()
	n, err := unix.EpollWait(p.epoll, p.events, timeout)
	if err != nil && err != unix.EINTR {
		panic(fmt.Sprintf("front: epoll_wait: %v", err)) // a mistake of this package
	}
	p.mu.Lock()
	p.asleep = false
	p.mu.Unlock()
	p.now = time.Now()
	for _, e := range p.events[:max(0, n)] {
		switch e.Fd {
		case wakeupEvent:
		case acceptEvent:
			p.accept()
		default:
			// The descriptor may be another connection's by now.
			if s := p.conns[e.Fd]; s != nil && s.serial == uint32(e.Pad) {
				s.event(e.Events)
				p.wakeUp(s)
			}
		}
	}
	p.sweep()
}

// httpDate returns the time for the header Date.
func (p *loop) httpDate() []byte {
	if at := p.now.Unix(); at != p.dateAt || p.date == nil {
		p.dateAt = at
		p.date = p.now.UTC().AppendFormat(p.date[:0], http.TimeFormat)
	}
	return p.date
}
