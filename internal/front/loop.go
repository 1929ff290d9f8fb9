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
//	resume what has waited
//	read, parse and start requests
//	submit what was started, which commits it, and begin again
//
// Start, Submit and Resume may take long, so they are guarded. If one takes too long, the
// deputy becomes the owner of the loop and goes on. The goroutine that was held up hands back
// the result and ends.
type loop struct {
	l       *Listener
	plain   Plain
	log     *slog.Logger
	context context.Context // of all requests
	epoll   int
	wakeup  int // an eventfd that wakes the owner up

	// turn is odd while the owner is in a guarded call. It grows with each call, and the
	// goroutine that makes it even is the owner.
	turn   atomic.Uint64
	parked atomic.Bool   // the deputy waits on alert
	full   atomic.Bool   // the limit on connections was reached
	count  atomic.Int32  // connections, with those in given; other loops read it
	alert  chan struct{} // has room for a token

	mu       sync.Mutex  // guards what follows
	done     []*Exchange // exchanges whose Done was called
	started  []*Exchange // exchanges whose Start or Resume took long and has returned
	queued   []*client   // connections of which a Submit took long and has returned
	asleep   bool        // the owner waits for events and has to be woken up
	closing  bool        // stop accepting connections
	stopping bool        // close connections that have no request
	killed   bool        // close all connections
	resume   bool        // a connection may be accepted again
	given    []int       // connections that another loop has accepted for this one

	// Used by the owner only.
	events     []unix.EpollEvent
	scratch    []byte    // the buffer to read into
	conns      []*client // by descriptor
	serial     uint32    // number of the newest connection
	runnable   []*client // connections with work to do
	taken      []*Exchange
	woken      []*Exchange // to be resumed
	batch      []*Exchange // to be submitted
	submitting bool        // the guarded call is Submit
	submitters []*client   // the connections of what it submits
	open       int         // exchanges that Plain has not decided yet, also those of dead clients
	spare      []*Exchange
	known      [fields]string // headers of the last request
	names      []string
	out        []byte // the buffer for answers
	now        time.Time
	date       []byte // the Date header at the second dateAt
	dateAt     int64
	swept      time.Time
	pace       pace
	stopSeen   bool          // a sweep has noticed stopping
	accepts    bool          // epoll watches the listener
	listener   int           // descriptor of the listener; -1: closed
	deaf       chan struct{} // closed once the listener is closed
	ended      chan struct{}
}

const (
	// readSize is how much input a connection can have in the scratch buffer.
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
	// Edge-triggered, so the counter is never read.
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

// watch has epoll watch a descriptor. Its events carry id and the serial.
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

// step does all work that is ready. It returns false if the loop has another owner now.
func (p *loop) step() bool {
	p.take()
	if !p.resumeSome() {
		return false
	}
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

// take handles the exchanges that other goroutines have handed back.
func (p *loop) take() {
	p.mu.Lock()
	p.taken, p.done = p.done, p.taken[:0]
	started, queued := p.started, p.queued
	p.started, p.queued = nil, nil
	p.mu.Unlock()
	for _, s := range queued {
		s.unqueued--
	}
	for _, x := range started {
		s := x.conn // act may clear it
		p.act(x)
		p.wakeUp(s)
	}
	for i, x := range p.taken {
		p.taken[i] = nil
		switch {
		case x.pending:
			if x.Keep {
				x.Gone = p.gone(x.conn)
			}
			x.verdict, x.pending, x.submitted, x.ready = p.plain.Finish(x), false, false, true
			x.conn.pending--
			p.open--
			p.wakeUp(x.conn)
		case x.waiting:
			x.waiting = false
			p.woken = append(p.woken, x)
		default:
			x.early = true
		}
	}
}

// wakeUp notes that s has work to do.
func (p *loop) wakeUp(s *client) {
	if !s.runnable {
		s.runnable = true
		p.runnable = append(p.runnable, s)
	}
}

// tell calls f, which changes a field that mu guards, and wakes the owner up.
func (p *loop) tell(f func()) {
	p.mu.Lock()
	f()
	wake := p.asleep
	p.asleep = false
	if wake {
		// The owner closes the eventfd only while it is not asleep.
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

// submit submits the batch, but for what has to wait for an earlier Submit.
func (p *loop) submit() bool {
	xs, from, behind := p.batch[:0], p.submitters[:0], []*Exchange(nil)
	for _, x := range p.batch {
		s := x.conn
		if x.Behind && s.unqueued > 0 {
			behind = append(behind, x)
			continue
		}
		xs, from = append(xs, x), append(from, s)
		if x.submitted = true; x.Keep && (s.ending || s.dead) {
			p.wakeUp(s) // to leave
		}
	}
	if len(xs) == 0 {
		return true
	}
	p.batch, p.submitters, p.submitting = behind, from, true
	lead := p.pace.mayLead()
	began := time.Now()
	if !p.guard(func() { p.plain.Submit(xs, lead) }) {
		p.tell(func() { p.queued = append(p.queued, from...) })
		return false
	}
	p.submitting = false
	if lead {
		p.pace.led(time.Since(began))
	}
	clear(xs)
	clear(from)
	p.batch = append(xs[:0], behind...)
	return true
}

// wait waits for events and notes which connections have work to do.
func (p *loop) wait() {
	timeout := 0
	p.mu.Lock()
	if len(p.woken) == 0 && len(p.runnable) == 0 && !p.hasNews() {
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
			// The descriptor may belong to another connection by now.
			if s := p.conns[e.Fd]; s != nil && s.serial == uint32(e.Pad) {
				s.event(e.Events)
				p.wakeUp(s)
			}
		}
	}
	p.sweep()
}

// hasNews reports whether the loop was told something that it has not acted on. p.mu must be held.
func (p *loop) hasNews() bool {
	return len(p.done) > 0 || len(p.started) > 0 || len(p.queued) > 0 || len(p.given) > 0 || p.resume ||
		p.closing && p.listener >= 0 || p.stopping && !p.stopSeen || p.killed
}

// httpDate returns the time for the header Date.
func (p *loop) httpDate() []byte {
	if at := p.now.Unix(); at != p.dateAt || p.date == nil {
		p.dateAt = at
		p.date = p.now.UTC().AppendFormat(p.date[:0], http.TimeFormat)
	}
	return p.date
}
