package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

const (
	// beatEvery is how often a primary tells its standby that it lives.
	beatEvery = time.Second
	// answerTime is how long a standby may take to answer.
	answerTime = 5 * time.Second
	// retryAfter is how long a primary waits after a standby did not answer.
	retryAfter = 100 * time.Millisecond
	// pieceSize is about how many bytes of batches are sent in one request while the
	// standby catches up.
	pieceSize = 1 << 20
)

// Errors of a primary; ErrOver and ErrClosed also end a write, whose outcome is
// unknown then.
var (
	ErrOver   = errors.New("another server has become the primary")
	ErrClosed = errors.New("the server stops")
)

// Source is the database of a primary, as far as a standby needs it.
type Source interface {
	Log() *wal.Log
	// Segments returns the segments that a follower needs, and up to which position of
	// the log. What stands before the position was answered.
	Segments() (at wal.Pos, numbers []uint64)
	// Refuse answers the writes that wait for their turn with an error: nothing of them is
	// done.
	Refuse(err error)
	// NoteTokens writes to the log which tokens may be handed out.
	NoteTokens() error
}

// Primary sends the log to a standby. It is the Mirror of its database. Its methods may
// be called by any goroutine, Begin, End and Cancel by the writer only.
type Primary struct {
	fs  disk.FS
	dir string
	log *slog.Logger
	e   *Elector // nil: an operator decides who is the primary
	// Over is closed once another server is the primary.
	Over chan struct{}

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	changed sync.Cond  // of acked, state, err
	source  Source
	state   State   // durable
	err     error   // why nothing is answered any more: ErrOver, ErrClosed
	link    *link   // to the standby; nil: none has joined
	acked   wal.Pos // up to where the standby has the log; zero: not known
	from    wal.Pos // where the batch begins that is being written
	whole   bool    // the standby has had the whole log since the start
	writing bool    // between Begin and End or Cancel
	stopped bool    // see Stop
	late    bool    // a batch has waited for the standby for longer than patience

	patience time.Duration // how long a batch waits before its calls are told that it is late
	slow     *time.Timer   // ends the wait of End

	added string // the standby that etcd says to have every write; of arbitrate

	verdict atomic.Pointer[verdict] // nil: everything can be answered
	buffer  []byte                  // the records of the frame on its way to the link's goroutine
}

// link is a standby that has joined.
type link struct {
	p      *Primary
	call   caller
	name   string // of the standby
	sync   bool
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
	direct chan wal.Frame // from the writer; it has room for one
	unsent error          // why the last batches could not be sent; only run uses it

	// Guarded by p.mu.
	live   bool      // it has answered the last request
	noted  bool      // the log has said since which tokens are used: a follower needs to know
	nudge  func()    // ends a wait for the next batch; nil: nobody waits
	near   bool      // it has nearly all: the writer waits for it, so that it can catch up
	caught bool      // it has all that is in the log, and gets batches from the writer
	since  time.Time // when it had all, or began to live or not to live, whatever was last
	why    error     // why it does not live
}

// NewPrimary returns the primary of a data directory. Serve is called once its
// database is open. With an Elector the server is the primary only as long as that says
// so.
func NewPrimary(fsys disk.FS, dir string, e *Elector, log *slog.Logger) (*Primary, error) {
	s, err := ReadState(fsys, dir)
	if err != nil {
		return nil, err
	}
	p := &Primary{fs: fsys, dir: dir, e: e, log: log, state: s, Over: make(chan struct{}), patience: answerTime}
	if e != nil { // within that time the standby is taken out, or this server is not the primary
		p.patience = e.o.Lease
	}
	p.changed.L = &p.mu
	p.slow = time.AfterFunc(p.patience, p.redecide)
	p.ctx, p.stop = context.WithCancel(context.Background())
	if !s.Primary {
		p.err = ErrOver
		close(p.Over)
	}
	p.decide()
	return p, nil
}

// Serve begins to take standbys for the database.
func (p *Primary) Serve(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source = s
	if p.e != nil {
		p.done.Add(1)
		go p.arbitrate()
	}
}

// Close ends what is on its way: a write that waits for the standby has an unknown
// outcome then.
func (p *Primary) Close() {
	p.mu.Lock()
	if p.err == nil {
		p.err = ErrClosed
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	p.stop()
	p.done.Wait()
}

// Begin hands the batch to the standby if that has all before it.
func (p *Primary) Begin(f wal.Frame) {
	p.mu.Lock()
	p.writing, p.from = true, f.From
	l := p.link
	now := l != nil && l.live && l.caught && p.acked == f.From
	p.mu.Unlock()
	if !now {
		return // it is read from the log later
	}
	// The writer's memory is its own again after End, which may come before the request
	// has ended.
	p.buffer = append(p.buffer[:0], f.Records...)
	f.Records = p.buffer
	l.direct <- f
}

// Cancel says that the log does not have the batch. If the standby has it, it cuts it
// when it joins again.
func (p *Primary) Cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	if p.acked.Seq > p.from.Seq {
		p.acked = wal.Pos{}
	}
	if l := p.link; l != nil && l.caught {
		l.cancel()
	}
}

// End waits until the standby has the batch, if no write is answered without it. After patience
// it returns a *commit.Late; called again it waits for as long as that takes, and until
// then nothing else is written.
func (p *Primary) End(end wal.Pos) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	began := time.Now()
	for p.err == nil && p.waitsFor(end) {
		if p.stopped && (p.link == nil || !p.link.live) {
			return ErrClosed
		}
		if left := p.patience - time.Since(began); p.late {
			p.decide() // a call can have been admitted before the last time, and come after it
			p.slow.Reset(beatEvery)
		} else if left <= 0 && p.state.Standby != "" {
			p.late = true
			p.decide()
			return &commit.Late{Why: p.verdict.Load().write}
		} else {
			p.slow.Reset(max(left, retryAfter))
		}
		p.changed.Wait()
	}
	p.slow.Stop()
	if p.late {
		p.late = false
		p.decide()
	}
	return p.err
}

// Stop says that the server stops: a write does not wait any more for a standby that does
// not answer. Close follows once the database is closed.
func (p *Primary) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.changed.Broadcast()
}

// waitsFor reports whether a batch that ends there has to wait for the standby. It wants
// p.mu held.
func (p *Primary) waitsFor(end wal.Pos) bool {
	l := p.link
	if p.acked == end {
		return false
	}
	if p.acked.Seq >= end.Seq {
		// It has another batch in this one's place, and has to give that up.
		p.acked = wal.Pos{}
		if l != nil {
			l.live, l.why = false, fmt.Errorf("it has another batch %d than this server", end.Seq)
			l.cancel()
		}
	}
	return p.state.Standby != "" || l != nil && l.near && l.live
}

// Status is what a server says of its role.
type Status struct {
	Role    string  `json:"role"` // "primary", "standby" or "replaced"
	Epoch   uint64  `json:"epoch"`
	Primary string  `json:"primary,omitempty"` // the address of another one
	Standby string  `json:"standby,omitempty"`
	Sync    bool    `json:"sync"` // an answer waits for both disks
	InSync  bool    `json:"in_sync"`
	Live    bool    `json:"live"` // the other server was heard of just now
	Batches uint64  `json:"lag_batches"`
	Seconds float64 `json:"lag_seconds"`
	// ClockSkew is how far the clock of a standby is ahead of the primary's, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
}

// Status returns what the server is and how far its standby is.
func (p *Primary) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Role: "primary", Epoch: p.state.Epoch, Standby: p.state.Standby, Sync: p.state.Standby != ""}
	if !p.state.Primary {
		s.Role, s.Primary = "replaced", p.state.Now
	}
	if l := p.link; l != nil {
		s.Standby, s.Live, s.InSync = l.name, l.live, l.caught && l.live
		end := p.source.Log().Durable()
		if s.Batches = end.Seq - min(p.acked.Seq, end.Seq); s.Batches > 0 {
			s.Seconds = time.Since(l.since).Seconds()
		}
	}
	return s
}

// Replaced reports whether another server is the primary.
func (p *Primary) Replaced() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.state.Primary
}

// Fence ends the server's time as the primary: one of a later epoch is at an address.
func (p *Primary) Fence(epoch uint64, now string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fence(epoch, now)
}

// fence wants p.mu held.
func (p *Primary) fence(epoch uint64, now string) error {
	if epoch == p.state.Epoch && !p.state.Primary {
		return nil // it was told already
	}
	if epoch <= p.state.Epoch {
		return &refused{http.StatusConflict, fmt.Sprintf("epoch %d is not later than this server's, %d", epoch, p.state.Epoch)}
	}
	s := p.state
	s.Epoch, s.Primary, s.Now, s.Standby, s.InSync = epoch, false, now, "", false
	if err := s.write(p.fs, p.dir); err != nil {
		return err
	}
	first := p.state.Primary
	p.state = s
	if p.err == nil {
		p.err = ErrOver
	}
	if first {
		close(p.Over)
	}
	p.decide()
	p.log.Warn("this server was replaced: another one is the primary, and nothing is answered here any more", "epoch", epoch, "primary", now)
	return nil
}

// GoAlone makes the primary answer without its standby: its epoch is over for every
// standby that it had. One that can be reached is told before GoAlone returns.
func (p *Primary) GoAlone() (epoch uint64, err error) {
	l, epoch, err := p.goAlone()
	if l == nil {
		return epoch, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, tellTime)
	defer cancel()
	// A beat of the new epoch: nobody waits for the standby any more.
	if err := l.call.post(ctx, "/replica/beat", beatRequest{Epoch: epoch}, nil); err != nil {
		p.log.Warn("the standby does not know that the primary goes on without it: do not promote it before it has followed again", "standby", l.name, "err", err)
	}
	return epoch, nil
}

// tellTime is how long a standby may take to hear that the primary goes on without it.
const tellTime = 2 * time.Second

// goAlone returns the link that it has ended; nil: there was none.
func (p *Primary) goAlone() (old *link, epoch uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, 0, p.err
	}
	if p.e != nil {
		return nil, 0, errElected
	}
	s := p.state
	s.Epoch++
	s.Standby = ""
	if err := s.write(p.fs, p.dir); err != nil {
		return nil, 0, err
	}
	p.state = s
	if p.link != nil {
		p.link.cancel()
	}
	p.decide()
	p.log.Warn("this server goes on without a standby", "epoch", s.Epoch)
	return p.link, s.Epoch, nil
}
