// Package db implements the APIs: sequences, counters, values, locks, mutexes and rates.
// Each API's operations are in a file of their own. Package db/commit commits them, and
// package db/store owns the files.
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

// Clock returns the time in ns. mono never steps and counts the time that the machine
// sleeps. wall is since 1970.
type Clock = commit.Clock

// Options say where a database lives and how large its files are.
type Options struct {
	FS  disk.FS // nil: the operating system's
	Dir string  // the data directory, made if missing
	// Who names this server in the lock file, for the error message of a second server.
	Who string

	Segment int64 // bytes of a log segment, a multiple of 4096; 0: 64 MiB
	// LeastSegment is the least size of a segment in bytes. It has to fit the largest
	// call. On a disk without room for eight segments of size Segment, segments are
	// smaller, but not smaller than this. 0: they are never smaller.
	LeastSegment int64
	Extent       int // bytes by which a slot table grows, a multiple of 4096; 0: 1 MiB
	// CheckpointRoom is the room for one copy in CHECKPOINT in bytes. It is used when the
	// directory is made. 0: 256 KiB.
	CheckpointRoom int64
	// CheckpointEvery is how many bytes are logged from one checkpoint to the
	// next; 0: a segment's.
	CheckpointEvery int64
	// CompactRatio is the ratio of the log's size to the live bytes of the values from
	// which the log is compacted. At least 1; 0: 2.
	CompactRatio float64
	// BackupHold is how many bytes of log may be kept only because a backup reads them;
	// 0: 4 GiB.
	BackupHold int64
	// Pause is what a backup calls to leave room for writes; nil: time.Sleep.
	Pause func(time.Duration)
	// QuietAfter is the time without writes after which a durability mark is written
	// behind the last batch; 0: 100 ms.
	QuietAfter time.Duration

	// Files is how many log segments may be open for reading at a time. It also limits
	// the reads of values that are under way. 0: 512.
	Files   int
	Waiters int // callers that may wait for locks and mutexes at once; 0: 100,000
	// Watchers is how many callers may watch something or listen to events at once; 0:
	// 100,000.
	Watchers int
	// Accounts are those that live on this server; none: all.
	Accounts []string
	Clock    Clock // nil: the machine's

	Progress store.Progress // called during Open; nil: none
	Mirror   Mirror         // gets each batch too before it is answered; nil: none

	Log      *slog.Logger // nil: none
	Observer Observer     // nil: none
	Audit    *slog.Logger // gets a line for each grant, forced unlock and expiry of a lock; nil: none
}

// Observer is told what happens in a database. Many goroutines call its methods at once,
// while requests wait, so they must not block.
type Observer interface {
	// Committed is told of each batch that was written.
	Committed(b commit.Batch)
	// Waited is told how long a call has waited for a lock, whether it got it or not.
	Waited(kind LockKind, d time.Duration)
	// HandedOver is told the time from the end of a hold until the waiter that is granted
	// the lock next goes on.
	HandedOver(kind LockKind, d time.Duration)
}

// LockKind is mutex or lock.
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
	follows  bool // it is a Follower's, and has no writer

	reads     reads
	retries   retryCounters
	reserving atomic.Bool // a block of tokens has been asked for
	noTokens  atomic.Bool // the disk was full when the last block was asked for
	draining  atomic.Bool
	backedUp  atomic.Int64 // wall time in ns of the last complete backup; 0: none yet
}

// Open makes or recovers a data directory and starts to take operations. It returns a
// *disk.LockedError if another process uses the directory, and a *disk.Damage if
// something that was durable is lost.
func Open(o Options) (*DB, error) {
	d, err := open(o)
	if err != nil {
		return nil, err
	}
	d.store.Start()
	d.writer.Start()
	go d.events.run()
	return d, nil
}

// open is Open without what goes on in the background.
func open(o Options) (*DB, error) {
	o.defaults()
	s, r, err := store.Open(store.Options{
		FS: o.FS, Dir: o.Dir, Who: o.Who,
		Segment: o.Segment, LeastSegment: o.LeastSegment, Extent: o.Extent, CheckpointRoom: o.CheckpointRoom,
		CheckpointEvery: o.CheckpointEvery, CompactRatio: o.CompactRatio, BackupHold: o.BackupHold, Pause: o.Pause,
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
		Mirror:     o.Mirror,
		OfClient:   ofClient,
	})
	return d, nil
}

// publish tells pages, watchers, events and the index of names what a durable batch has changed.
func (d *DB) publish(at commit.Moment, touched []commit.Touched) {
	d.pages.publish(touched) // before the index: see listing.look
	d.publishNames(at, touched)
	d.events.publish(at, touched)
	d.watchers.publish(touched)
}

// Failed is closed when writes are stopped.
func (d *DB) Failed() <-chan struct{} { return d.writer.Failed() }

// Err returns the reason why writes are stopped, or nil.
func (d *DB) Err() error { return d.writer.Err() }

// Pulse shows whether the writer makes progress; see commit.Pulse.
func (d *DB) Pulse() commit.Pulse { return d.writer.Pulse() }

// Drain answers all calls that wait for a lock or watch something with ErrStopping, and
// later ones too. Other calls go on.
func (d *DB) Drain() {
	d.draining.Store(true)
	d.watchers.drain()
	d.writer.Drain()
	d.mutexes.Drain()
}

// Close refuses new operations with ErrStopping, answers those that were submitted, writes
// a last checkpoint and closes the files. After a failure of the disk it only closes the
// files and returns the failure.
func (d *DB) Close() error {
	d.Drain()
	d.writer.Close()
	close(d.events.stop)
	<-d.events.done
	// No more tokens are given, so the next start may use the rest of the block.
	return d.store.Close(d.tokens.Stop())
}

// LockStats are the counts of all locks, or of all mutexes.
type LockStats = lease.Stats

// Stats are the figures of a database.
type Stats struct {
	store.Stats
	Queue          int // operations that the writer has not yet taken
	Commits        uint64
	Locks, Mutexes lease.Stats
	RateWaiters    int // calls that wait until a rate allows them
	Retries        RetryStats
	Watch          WatchStats
	Stopped        bool // the disk failed
	// BackedUp is the moment of the last complete backup; zero: none since Open.
	BackedUp time.Time
}

// Stats returns the current figures.
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
