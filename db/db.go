// Package db says what a sequence, a counter, a lock and a value are: each API's
// operations, in a file of its own, and how to wait for them. What commits them is
// package db/commit, and the files belong to package db/store.
package db

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/lease"
)

// Clock tells the time in ns: mono never steps and counts the time that the
// machine sleeps, wall is since 1970.
type Clock = commit.Clock

// Options say where a database lives and how large its files are.
type Options struct {
	FS  disk.FS // nil: the operating system's
	Dir string  // the data directory, made if missing
	// Who is written into the lock file, for a second server to name the first.
	Who string

	Segment int64 // bytes of a log segment, a multiple of 4096; 0: 64 MiB
	// LeastSegment is the least size of a segment in bytes, which the largest call must
	// fit: on a disk that has no room for eight of Segment they are smaller. 0: none is.
	LeastSegment int64
	Extent       int // bytes by which a slot table grows, a multiple of 4096; 0: 1 MiB
	// CheckpointRoom is the room for one copy in CHECKPOINT in bytes, used when
	// the directory is made; 0: 256 KiB.
	CheckpointRoom int64
	// CheckpointEvery is how many bytes are logged from one checkpoint to the
	// next; 0: a segment's.
	CheckpointEvery int64
	// CompactRatio is how much larger than what is live of the values the log may
	// become, at least 1, before it is compacted; 0: 2.
	CompactRatio float64
	// BackupHold is how many bytes of log may be kept for a backup that would be
	// freed otherwise; 0: 4 GiB.
	BackupHold int64
	// QuietAfter is how long it is quiet before a durability mark is written
	// behind the last batch; 0: 100 ms.
	QuietAfter time.Duration

	// Files is how many files of log segments may be open for reading at a time, and
	// with that how many reads of values may be under way; 0: 512.
	Files   int
	Waiters int // callers that may wait for locks and mutexes at once; 0: 100,000
	// Watchers is how many may watch something or listen to events at once; 0: 100,000.
	Watchers int
	// Accounts are those that live on this server; none: all.
	Accounts []string
	Clock    Clock // nil: the machine's

	Progress store.Progress // of Open; nil: nobody looks

	Log      *slog.Logger // nil: none
	Observer Observer     // nil: none
	Audit    *slog.Logger // gets a line for each grant, forced unlock and expiry of a lock; nil: none
}

// Observer learns what happens in a database. Its methods are called while requests
// wait, by many goroutines at once, and must not block.
type Observer interface {
	// Committed is told of each batch that was written.
	Committed(b commit.Batch)
	// Waited is told how long a call has waited for a lock, whatever its answer.
	Waited(kind LockKind, d time.Duration)
	// HandedOver is told how long it took from the end of a hold until the next
	// holder, which waited, goes on.
	HandedOver(kind LockKind, d time.Duration)
}

// LockKind tells mutexes and locks apart.
type LockKind uint8

// The kinds of locks.
const (
	MutexInMemory LockKind = iota
	LockOnDisk
)

// noObserver is used if Options has no Observer.
type noObserver struct{}

func (noObserver) Committed(commit.Batch)             {}
func (noObserver) Waited(LockKind, time.Duration)     {}
func (noObserver) HandedOver(LockKind, time.Duration) {}

func (o *Options) defaults() {
	if o.QuietAfter == 0 {
		o.QuietAfter = 100 * time.Millisecond
	}
	if o.Files == 0 {
		o.Files = maxReads
	}
	if o.Waiters == 0 {
		o.Waiters = 100_000
	}
	if o.Watchers == 0 {
		o.Watchers = 100_000
	}
	if o.Clock == nil {
		o.Clock = commit.MachineClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
}

// DB is an open data directory. Its methods may be called by any goroutine.
type DB struct {
	observer Observer
	log      *slog.Logger

	store    *store.Store
	writer   *commit.Writer
	tokens   *commit.Tokens
	locks    *locks
	rates    *rates
	mutexes  *Mutexes
	watchers *watchers
	pages    pages
	events   *eventHub
	homes    atomic.Pointer[homes]
	moves    moves

	reads     reads
	retries   retryCounters
	reserving atomic.Bool // a block of tokens is on its way
	noTokens  atomic.Bool // the disk was full when the last block was asked for
	draining  atomic.Bool
	backedUp  atomic.Int64 // the moment of the last backup that was written whole: wall time in ns; 0: none yet
}

// Open makes or recovers a data directory and starts to take operations. The
// error is a *disk.LockedError where another process has the directory, and a
// *disk.Damage where something that was durable is not there any more.
func Open(o Options) (*DB, error) {
	o.defaults()
	s, r, err := store.Open(store.Options{
		FS: o.FS, Dir: o.Dir, Who: o.Who,
		Segment: o.Segment, LeastSegment: o.LeastSegment, Extent: o.Extent, CheckpointRoom: o.CheckpointRoom,
		CheckpointEvery: o.CheckpointEvery, CompactRatio: o.CompactRatio, BackupHold: o.BackupHold,
		Files: o.Files, Clock: o.Clock, Log: o.Log, Progress: o.Progress,
	})
	if err != nil {
		return nil, err
	}
	d := &DB{observer: o.Observer, log: o.Log, store: s, tokens: r.Tokens, reads: make(reads, min(maxReads, o.Files))}
	d.watchers, d.events = newWatchers(o.Watchers), newEventHub(d)
	moves, err := loadMarks(s.Values)
	if err != nil {
		return nil, errors.Join(err, s.Abandon())
	}
	d.homes.Store(newHomes(o.Accounts, moves))
	d.moves.init()
	waiters := lease.NewLimit(o.Waiters)
	d.locks = newLocks(waiters, s.SegmentSize())
	d.locks.audit = audit{o.Audit, "lock"}
	d.locks.failed, d.locks.admit = d.Err, d.Admit
	if err := d.locks.restore(s); err != nil {
		return nil, errors.Join(err, s.Abandon())
	}
	ends, err := commit.NewEnds(s.Tables, ending)
	if err != nil {
		return nil, errors.Join(err, s.Abandon())
	}
	d.rates = newRates(waiters, d.Admit)
	d.mutexes = newMutexes(mutexOptions{Clock: o.Clock, Token: d.mutexToken, Limit: waiters, Changed: d.watchers.mutexChanged, Observer: o.Observer, Audit: o.Audit})
	d.writer = s.NewWriter(r, commit.Options{
		Parts:      []commit.Part{d.locks, d.rates},
		Ends:       ends,
		QuietAfter: o.QuietAfter,
		Admit:      d.admitOp,
		Batch:      o.Observer.Committed,
		Publish:    d.publish,
	})
	s.Start()
	d.writer.Start()
	go d.events.run()
	return d, nil
}

// publish tells all who want to know what a durable batch has changed.
func (d *DB) publish(at commit.Moment, touched []commit.Touched) {
	d.pages.publish(touched) // before the index: see listing.look
	d.publishNames(at, touched)
	d.events.publish(at, touched)
	d.watchers.publish(touched)
}

// Failed is closed once writes are stopped.
func (d *DB) Failed() <-chan struct{} { return d.writer.Failed() }

// Err says why writes are stopped; nil while they are not.
func (d *DB) Err() error { return d.writer.Err() }

// Pulse shows whether the writer goes on; see commit.Pulse.
func (d *DB) Pulse() commit.Pulse { return d.writer.Pulse() }

// Drain makes whoever waits for a lock or watches something, now or later, get
// ErrStopping. Other calls go on.
func (d *DB) Drain() {
	d.draining.Store(true)
	d.watchers.drain()
	d.writer.Drain()
	d.mutexes.Drain()
}

// Close refuses new operations with ErrStopping, answers those on their way,
// writes a last checkpoint and closes the files. After a failed disk it only
// closes and returns why.
func (d *DB) Close() error {
	d.Drain()
	d.writer.Close()
	close(d.events.stop)
	<-d.events.done
	// What is left of the block of tokens need not be skipped; nobody gets one now.
	return d.store.Close(d.tokens.Stop())
}

// LockStats are the counts of all locks, or of all mutexes.
type LockStats = lease.Stats

// Stats are plain numbers for whoever watches.
type Stats struct {
	store.Stats
	Queue          int // operations that the writer has not yet taken
	Commits        uint64
	Locks, Mutexes lease.Stats
	RateWaiters    int // calls that wait until a rate allows them
	Retries        RetryStats
	Watch          WatchStats
	Stopped        bool // the disk failed
	// BackedUp is the moment of the last backup that was written whole; zero: none
	// was since Open.
	BackedUp time.Time
}

// Stats returns the numbers of now.
func (d *DB) Stats() Stats {
	var backedUp time.Time
	if at := d.backedUp.Load(); at != 0 {
		backedUp = time.Unix(0, at)
	}
	return Stats{
		BackedUp:    backedUp,
		Stats:       d.store.Stats(),
		Queue:       d.writer.Waiting(),
		Commits:     d.writer.Commits(),
		Locks:       d.locks.stats(),
		Mutexes:     d.mutexes.Stats(),
		RateWaiters: int(d.rates.waiting.Load()),
		Watch:       d.watchStats(),
		Stopped:     d.Err() != nil,
		Retries:     d.retries.stats(),
	}
}
