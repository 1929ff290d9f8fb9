// Package commit is the single writer: it turns operations into batches of the log, makes them
// durable and applies them. It knows nothing about the APIs, which define their own operations.
//
// One goroutine at a time, the leader, commits. Nobody else changes anything:
//
//	take all calls that wait in the queue
//	decide each operation against the tables and what this batch has decided so far
//	encode what changed as one batch of records
//	append the batch to the log: one write, one fdatasync
//	apply the records to the tables and to the index of the values
//	publish what was touched
//	answer the calls, refusals too: they may depend on what this batch decided
//
// If the append finds the disk full, everything that the batch decided is undone, and
// Room makes room for its calls or refuses them.
//
// Nothing is answered and nothing can be read before it is durable, and the tables
// never hold what the log does not. Calls that arrive meanwhile are the next batch.
package commit

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/kvlog/wal"
)

// MaxBatch bounds a batch in bytes, so that the first caller of a long queue does
// not wait for all of it. A single operation may be larger.
const MaxBatch = 4 << 20

// Options say what a Writer works on.
type Options struct {
	State *State
	Log   *wal.Log
	Room  Room
	// Position is where the log ends.
	Position wal.Pos
	Tokens   *Tokens
	Parts    []Part // at most 3
	Ends     *Ends  // one more Part; nil: nothing in a slot expires
	Clock    DatabaseClock
	// QuietAfter is how long after the last batch a durability mark is written, if
	// no other batch follows.
	QuietAfter time.Duration
	Logger     *slog.Logger

	// Admit, if not nil, is called before an operation is decided. If it returns an error, that
	// is the answer.
	Admit func(Op) error
	// Batch, if not nil, is called after each batch that was written.
	Batch func(Batch)
	// Publish, if not nil, is called with what a batch has touched and the moment at which the
	// batch was decided. It is called after the batch is applied, before Position includes the
	// batch and before its calls are answered. It must not block.
	Publish func(at Moment, touched []Touched)
	// Maintain is called after each batch, since there may be work for the background
	// goroutines. It must not block.
	Maintain func()
	Mirror   Mirror // nil: the log is the only place that has a batch
	// OfClient reports whether a client waits for an operation. If a Mirror is late, such
	// operations are answered without it. nil: none are.
	OfClient func(Op) bool

	tick time.Duration // 0: ClockTick
}

// Batch describes a batch that was written.
type Batch struct {
	Calls int           // answered by it
	Bytes int           // written to the log
	Sync  time.Duration // of the write and the sync
}

// Position is what is durable and applied.
type Position struct {
	Log     wal.Pos
	Tokens  uint64 // every token handed out is below
	Version uint64 // the newest version of a value
	Moment  Moment // the latest in the log
}

// Writer is the single writer. Any goroutine may call its exported methods.
type Writer struct {
	o     Options
	queue *queue

	// Owned by the leader.
	todo, rest    []*Call // what was taken from the queue, and what of it is not yet decided
	closed        bool    // no more calls will be queued
	tx            *Tx
	appended      time.Time  // when the last batch was appended
	quiet         bool       // a durability mark follows it
	expiryBlocked bool       // the log has no room to expire what is due
	lacks         NoRoom     // what the last blocked expiry lacked
	decided       []*Call    // the calls of the batch, except those that Room has taken over
	refused       time.Time  // when a batch last found the disk full
	late          *lateBatch // the mirror lacks the batch still, whose calls were answered; nil: none
	timer         *time.Timer

	draining atomic.Bool
	done     chan struct{} // closed once the standby has ended

	mu       sync.Mutex // guards position
	position Position

	pulse    pulse
	commits  atomic.Uint64
	changes  atomic.Uint64 // odd while a batch is applied and published
	failOnce sync.Once
	failure  atomic.Pointer[error]
	failed   chan struct{}
}

// New returns a writer that does nothing before Start.
func New(o Options) *Writer {
	if o.Ends != nil {
		o.Ends.room = func() int { return o.Log.Room(false) }
		o.Parts = append(o.Parts, o.Ends) // the last, because it can be blocked when the others are not
	}
	o.Mirror = cmp.Or(o.Mirror, Mirror(noMirror{}))
	o.tick = cmp.Or(o.tick, ClockTick)
	return &Writer{
		o: o, queue: newQueue(), tx: newTx(&o),
		quiet:    true, // recovery has just rewritten everything, and a checkpoint follows it
		timer:    time.NewTimer(o.tick),
		done:     make(chan struct{}),
		failed:   make(chan struct{}),
		position: Position{Log: o.Position, Tokens: o.State.Tokens, Version: o.State.Version, Moment: o.State.Moment},
	}
}

// Start starts the standby.
func (w *Writer) Start() { go w.standby() }

// Submit hands calls to the writer, which answers each by its Done. A caller that
// finds the writer idle commits one batch itself, on its own goroutine, and its
// calls are answered before Submit returns. An error means that the writer takes no
// more calls; then no Done is called.
func (w *Writer) Submit(calls ...*Call) error {
	lead, err := w.queue.put(true, calls...)
	if lead {
		w.lead()
	}
	return err
}

// Queue is like Submit, but never commits on the caller's goroutine.
func (w *Writer) Queue(calls ...*Call) error {
	_, err := w.queue.put(false, calls...)
	return err
}

// Waiting returns how many calls the writer has not yet taken.
func (w *Writer) Waiting() int { return w.queue.len() }

// Commits returns how many batches were written.
func (w *Writer) Commits() uint64 { return w.commits.Load() }

// Position returns what is durable and applied.
func (w *Writer) Position() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.position
}

// Changes counts the batches that were applied and published. ok is false while a batch is
// being applied or published: a read may then see only a part of it.
func (w *Writer) Changes() (n uint64, ok bool) {
	n = w.changes.Load()
	return n / 2, n%2 == 0
}

// Wake makes the standby check whether there is something to do.
func (w *Writer) Wake() { w.queue.signal() }

// Fail stops writes for good, because it is no longer known what the disk holds. The server
// watches Failed and ends the process; the next start recovers.
func (w *Writer) Fail(err error) {
	w.failOnce.Do(func() {
		stopped := fmt.Errorf("%w: %w", ErrStopped, err)
		w.failure.Store(&stopped)
		w.queue.close(ErrStopped)
		w.o.Logger.Error("writes are stopped", "err", err)
		close(w.failed)
	})
}

// Failed is closed once writes are stopped.
func (w *Writer) Failed() <-chan struct{} { return w.failed }

// Err returns why writes are stopped, or nil if they are not.
func (w *Writer) Err() error {
	if p := w.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Drain answers every call that waits for a lock, now or later, with ErrStopping.
// Other calls go on.
func (w *Writer) Drain() {
	w.draining.Store(true)
	w.queue.signal()
}

// Close refuses new calls with ErrStopping, answers those on their way and returns
// once the writer has ended.
func (w *Writer) Close() {
	w.Drain()
	w.queue.close(ErrStopping)
	<-w.done
	w.timer.Stop()
}

// standby leads when no caller does and there is something to do: calls that did not fit into a
// caller's batch, and things that expire.
func (w *Writer) standby() {
	defer close(w.done)
	for rang := false; ; {
		rang = w.idle() || rang
		if !w.queue.begin() {
			continue
		}
		if rang {
			rang = false
			w.markQuiet()
		}
		for over := false; !over; over = w.queue.end() {
			for w.round() {
				w.settle()
			}
			if w.closed {
				return // nobody else leads from here on
			}
			w.setTimer()
		}
	}
}

// lead is a caller's turn: one batch. What does not fit into it is left to the
// standby.
func (w *Writer) lead() {
	defer func() {
		if p := recover(); p != nil {
			// The batch may be half done, so no caller may go on from here. Crash.
			go panic(fmt.Sprintf("%v\n%s", p, debug.Stack()))
			select {}
		}
	}()
	w.round()
	if w.late != nil {
		go w.endTurn() // the caller has its answer and need not wait with the writer
		return
	}
	w.endTurn()
}

// endTurn ends a caller's turn.
func (w *Writer) endTurn() {
	w.settle()
	w.setTimer()
	w.queue.yield(len(w.rest) > 0)
}

// round commits one batch: calls that wait, and what has expired. It returns false
// if there was nothing to do.
func (w *Writer) round() bool {
	w.pulse.steps.Add(1)
	if len(w.rest) == 0 {
		// Let goroutines that are about to submit do so first: more calls share the sync.
		runtime.Gosched()
		w.todo, w.closed = w.queue.take(w.todo)
		w.rest = w.todo
		// Read the time after taking the queue: no call of this batch is newer than it.
		w.tx.moment = w.o.Clock.Read()
	}
	refuse := w.draining.Load() || w.closed
	if len(w.rest) == 0 && !refuse && !w.due() {
		return false
	}
	n, did := w.commit(w.rest, refuse)
	w.rest = w.rest[n:]
	if len(w.rest) == 0 {
		clear(w.todo)
	}
	return did
}

// due reports whether anything has expired or a moment has to be written.
func (w *Writer) due() bool {
	if w.expiryBlocked {
		return false
	}
	at, ok := w.next()
	return ok && at <= w.tx.moment.Now || w.noteDue()
}

// noteDue reports whether the batch has to write its moment to the log even if no operation asks
// for it, because the wall clock has stepped or the last moment in the log is old. Only a step
// may use the reserve.
func (w *Writer) noteDue() bool {
	last, now := w.o.State.Moment, w.tx.moment
	stepped := last.Stepped(now) != 0
	return (stepped || now.Now-last.Now >= int64(ClockNote)) && w.o.Log.Room(stepped) >= SlotChange
}

// next returns the first instant at which a Part changes by itself.
func (w *Writer) next() (at int64, ok bool) {
	at = math.MaxInt64
	for _, p := range w.o.Parts {
		if t, some := p.Next(); some {
			at, ok = min(at, t), true
		}
	}
	return at, ok
}

// idle waits until there is something to do, and reports whether the timer rang.
func (w *Writer) idle() (rang bool) {
	select {
	case <-w.queue.wake:
		return false
	case <-w.timer.C:
		return true
	}
}

// BlockedWait is how long an idle writer waits before it retries expiries for which the log had
// no room.
const BlockedWait = 50 * time.Millisecond

// setTimer sets the timer at the end of a turn to whichever comes first: a durability mark, a
// change of a Part, or the next look at the clocks.
func (w *Writer) setTimer() {
	wait := w.o.tick
	if !w.quiet {
		wait = min(wait, w.o.QuietAfter-time.Since(w.appended))
	}
	if at, ok := w.next(); ok {
		left := time.Duration(at - w.o.Clock.Now())
		if w.expiryBlocked {
			left = BlockedWait
		}
		wait = min(wait, left)
	}
	if w.expiryBlocked {
		w.expiryBlocked = false
		w.o.Maintain() // there may be room again
	}
	w.timer.Reset(wait)
}

// markQuiet writes a durability mark after the last batch if no batch has followed it for a
// while. A batch that another one follows was durable, so damage in it is never taken for a torn
// tail.
func (w *Writer) markQuiet() {
	if w.quiet || w.queue.len() > 0 || time.Since(w.appended) < w.o.QuietAfter {
		return
	}
	w.quiet = true
	if w.o.Room.Begin() < SlotChange || w.Err() != nil {
		return
	}
	w.tx.reset()
	w.tx.moment = w.o.Clock.Read()
	w.tx.Date()
	w.tx.encode()
	// On a full disk there is no mark. A late batch is settled below. Any other error has stopped
	// writes.
	_ = w.append()
	w.settle()
}
