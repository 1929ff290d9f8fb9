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

	"clouddragon/db"
	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

const (
	// beatEvery is the interval of the primary's heartbeats.
	beatEvery = time.Second
	// answerTime is how long a standby may take to answer.
	answerTime = 5 * time.Second
	// retryAfter is the pause after a request that the standby did not answer.
	retryAfter = 100 * time.Millisecond
	// pieceSize is the approximate size of a request while the standby catches up, in
	// bytes.
	pieceSize = 1 << 20
)

// Why a primary has stopped. A write that either of them ends has an unknown outcome.
var (
	ErrOver   = errors.New("another server has become the primary")
	ErrClosed = errors.New("the server stops")
)

// Source is what a Primary needs of its database.
type Source interface {
	Log() *wal.Log
	// Segments returns the segments that a follower needs once its log has reached the
	// position at. Every batch before that position was answered.
	Segments() (at wal.Pos, numbers []uint64)
	// Refuse answers the writes in the queue with an error. None of them is done.
	Refuse(err error)
	// KeepLog keeps the log from now on, until it is released.
	KeepLog() (*db.LogKeeper, error)
	// Time returns the database time in nanoseconds.
	Time() int64
	// NoteTokens writes the limit of tokens to the log.
	NoteTokens() error
}

// Primary sends the log to a standby. It is the Mirror of its database. Any goroutine may
// call its methods, except that only the writer calls Begin, End and Cancel.
type Primary struct {
	fs  disk.FS
	dir string
	log *slog.Logger
	e   *Elector // nil: an operator decides which server is the primary
	// Over is closed when another server has become the primary.
	Over chan struct{}

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	changed sync.Cond  // signals changes of acked, state and err
	source  Source
	state   State   // as it is on disk
	err     error   // why nothing is answered any more: ErrOver or ErrClosed
	link    *link   // to the standby; nil: none has joined
	kept    *kept   // for a standby that is about to join; nil: nothing
	acked   wal.Pos // where the standby's log ends; zero: unknown
	from    wal.Pos // where the batch being written begins
	whole   bool    // the standby has had the whole log at some time since the start
	writing bool    // between Begin and End or Cancel
	stopped bool    // see Stop
	late    bool    // a batch has waited for the standby longer than patience
	// silent is when the standby that every write waits for stopped answering; zero: it
	// answers. That it joins again is no answer.
	silent time.Time

	patience time.Duration // how long a batch waits before its calls are answered as late
	slow     *time.Timer   // wakes End

	added string // the standby that etcd lists as having every write; owned by arbitrate

	verdict atomic.Pointer[verdict] // nil: everything can be answered
	buffer  []byte                  // records of the frame passed to the link's goroutine
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
	direct chan wal.Frame // from the writer; has room for one
	unsent error          // why the last send failed; owned by run

	// Guarded by p.mu.
	live   bool      // it answered the last request
	noted  bool      // the limit of tokens was written to the log since it joined
	nudge  func()    // interrupts a wait for the next batch; nil: run is not waiting
	near   bool      // it lacks few batches; the writer waits for it so that it can catch up
	caught bool      // it has the whole log, and gets batches from the writer
	since  time.Time // when it last had the whole log, or when live last changed, if that is later
	why    error     // why it is not live
}

// NewPrimary returns the primary of a data directory. Call Serve once its database is open.
// With an Elector the server is the primary only while the Elector's lease is valid.
func NewPrimary(fsys disk.FS, dir string, e *Elector, log *slog.Logger) (*Primary, error) {
	s, err := ReadState(fsys, dir)
	if err != nil {
		return nil, err
	}
	p := &Primary{fs: fsys, dir: dir, e: e, log: log, state: s, Over: make(chan struct{}), patience: answerTime}
	if e != nil { // by then either the standby is removed or this server has lost its lease
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

// Serve starts to accept standbys for the database.
func (p *Primary) Serve(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source = s
	if p.e != nil {
		p.e.setOpen(true)
		p.done.Add(1)
		go p.arbitrate()
	}
}

// Close ends the link and all waits. A write that is waiting for the standby has an unknown
// outcome.
func (p *Primary) Close() {
	p.mu.Lock()
	if p.err == nil {
		p.err = ErrClosed
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	p.stop()
	p.done.Wait()
	if p.e != nil {
		p.e.setOpen(false)
	}
}

// Begin hands the batch to the link's goroutine if the standby has everything before it.
func (p *Primary) Begin(f wal.Frame) {
	p.mu.Lock()
	p.writing, p.from = true, f.From
	l := p.link
	now := l != nil && l.live && l.caught && p.acked == f.From
	p.mu.Unlock()
	if !now {
		return // the link reads it from the log later
	}
	// Copy the records: the writer reuses its memory after End, which may return before the
	// request is done.
	p.buffer = append(p.buffer[:0], f.Records...)
	f.Records = p.buffer
	l.direct <- f
}

// Cancel is called if the batch is not in the log. A standby that has it cuts it off when it
// joins again.
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

// End waits until the standby has the batch, if writes wait for the standby. After patience
// it returns a *commit.Late. The second call waits for as long as it takes, and nothing else
// is written until then.
func (p *Primary) End(end wal.Pos) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	if p.err == nil && !p.late && !p.waitsFor(end) {
		return nil
	}
	began := time.Now()
	for p.err == nil && p.waitsFor(end) {
		if p.stopped && (p.link == nil || !p.link.live) {
			return ErrClosed
		}
		if left := p.patience - time.Since(began); p.late {
			p.decide() // refuses calls that were admitted before the last decide and queued after it
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

// Stop is called when the server begins to stop. From then on a write does not wait for a
// standby that does not answer. Call Close once the database is closed.
func (p *Primary) Stop() {
	p.mu.Lock()
	k := p.kept
	p.stopped = true
	p.changed.Broadcast()
	p.mu.Unlock()
	p.release(k)
}

// waitsFor reports whether a batch that ends at end has to wait for the standby. The caller
// holds p.mu.
func (p *Primary) waitsFor(end wal.Pos) bool {
	l := p.link
	if p.acked == end {
		return false
	}
	if p.acked.Seq >= end.Seq {
		// The standby has a different batch in this place and has to cut it off.
		p.acked = wal.Pos{}
		if l != nil {
			l.live, l.why = false, fmt.Errorf("its batch %d differs from this server's", end.Seq)
			l.cancel()
		}
	}
	return p.state.Standby != "" || l != nil && l.near && l.live
}

// Status describes a server's role.
type Status struct {
	Role    string  `json:"role"` // "primary", "standby" or "replaced"
	Epoch   uint64  `json:"epoch"`
	Primary string  `json:"primary,omitempty"` // its address, if it is another server
	Standby string  `json:"standby,omitempty"`
	Sync    bool    `json:"sync"` // an answer waits for both disks
	InSync  bool    `json:"in_sync"`
	Live    bool    `json:"live"` // the other server was heard from recently
	Batches uint64  `json:"lag_batches"`
	Seconds float64 `json:"lag_seconds"`
	// ClockSkew is how far the clock of a standby is ahead of the primary's, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
}

// Status returns the server's role and how far behind its standby is.
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

// Fence ends the server's time as the primary. now is the address of the primary of the later
// epoch.
func (p *Primary) Fence(epoch uint64, now string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fence(epoch, now)
}

// fence is Fence; the caller holds p.mu.
func (p *Primary) fence(epoch uint64, now string) error {
	if epoch == p.state.Epoch && !p.state.Primary {
		return nil // it was told already
	}
	if p.e != nil && p.e.Admit() == nil {
		return &refused{http.StatusConflict, fmt.Sprintf("etcd says that this server is the primary, of epoch %d, but the other server knows epoch %d: move the data directory of the other server away, so that it fetches a copy", p.state.Epoch, epoch)}
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

// GoAlone makes the primary answer without its standby. It starts a new epoch, which no
// earlier standby belongs to. A standby that can be reached is told before GoAlone returns.
func (p *Primary) GoAlone() (epoch uint64, err error) {
	l, epoch, err := p.goAlone()
	if l == nil {
		return epoch, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, tellTime)
	defer cancel()
	// A beat of the new epoch tells the standby that writes no longer wait for it.
	if err := l.call.post(ctx, "/replica/beat", beatRequest{Epoch: epoch}, nil); err != nil {
		p.log.Warn("the standby does not know that the primary goes on without it: do not promote it before it has followed again", "standby", l.name, "err", err)
	}
	return epoch, nil
}

// tellTime is how long a standby may take to hear that the primary goes on without it.
const tellTime = 2 * time.Second

// goAlone returns the link that it ended, or nil if there was none.
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
