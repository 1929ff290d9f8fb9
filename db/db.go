// Package db is the state machine: what a sequence, a counter, a lock and a
// value are, the single writer that commits what they become, checkpoints and
// recovery. commit.go tells the way of a write, recover.go that of a start.
package db

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/internal/lease"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Options say where a database lives and how large its files are.
type Options struct {
	FS  disk.FS // nil: the operating system's
	Dir string  // the data directory, made if missing
	// Who is written into the lock file, for the one who finds it taken.
	Who string

	Segment int64 // bytes of a log segment, a multiple of 4096; 0: 64 MiB
	Extent  int   // bytes by which a slot table grows, a multiple of 4096; 0: 1 MiB
	// CheckpointRoom is the room for one copy in CHECKPOINT in bytes, used when
	// the directory is made; 0: 256 KiB.
	CheckpointRoom int64
	// CheckpointEvery is how many bytes are logged from one checkpoint to the
	// next; 0: a segment's.
	CheckpointEvery int64
	// CompactRatio is how much larger than what is live of the values the log may
	// become, at least 1, before it is compacted; 0: 2.
	CompactRatio float64
	// MarkAfter is how long it is quiet before a mark says that the last batch
	// was durable; 0: 100 ms.
	MarkAfter time.Duration

	// Files is how many files of log segments may be open for reading at a time, and
	// with that how many reads of values may be under way; 0: 512.
	Files   int
	Waiters int   // callers that may wait for locks and mutexes at once; 0: 100,000
	Clock   Clock // nil: the machine's

	Log      *slog.Logger // nil: none
	OnCommit func(Commit) // called by whoever writes, after each batch; nil: none
	// Called by whoever waited for a mutex, many at once, once it no longer
	// waits; and by the next holder, with the time from the end of the hold before.
	OnMutexWait, OnMutexHandOver func(time.Duration)
	// The same of the locks on disk.
	OnLockWait, OnLockHandOver func(time.Duration)
}

// Commit is what OnCommit learns of a batch.
type Commit struct {
	Operations int           // answered by it
	Bytes      int           // written to the log
	Sync       time.Duration // of the write and the sync
}

func (o *Options) defaults() {
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.Segment == 0 {
		o.Segment = 64 << 20
	}
	if o.Extent == 0 {
		o.Extent = 1 << 20
	}
	if o.CheckpointRoom == 0 {
		o.CheckpointRoom = checkpointCopy
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = o.Segment
	}
	if o.CompactRatio == 0 {
		o.CompactRatio = 2
	}
	if o.MarkAfter == 0 {
		o.MarkAfter = 100 * time.Millisecond
	}
	if o.Files == 0 {
		o.Files = maxReads
	}
	if o.Waiters == 0 {
		o.Waiters = 100_000
	}
	if o.Clock == nil {
		o.Clock = machineClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// DB is an open data directory. Its methods may be called by any goroutine.
type DB struct {
	logger                     *slog.Logger
	onCommit                   func(Commit)
	markAfter                  time.Duration
	onLockWait, onLockHandOver func(time.Duration)
	extent                     int
	lock                       io.Closer // keeps other processes out; nil where the FS has no locks

	tables  *slots.Tables
	log     *wal.Log
	values  *kvlog.Values
	reads   reads
	queue   *queue
	mutexes *Mutexes

	// Owned by the one whose turn it is to write.
	todo, rest []*op // what was taken from the queue, and what of it is not yet decided
	closed     bool  // nothing more will be in the queue
	batch      *pending
	answers    []*op     // what the batch answers
	appended   time.Time // when the last batch was
	marked     bool      // a mark stands behind it
	starved    bool      // the log has no room to end a hold
	timer      *time.Timer
	locks      *lease.Table
	moment            // of this batch
	noted      moment // the last in the log

	clock     databaseClock
	tokens    tokens
	reserving atomic.Bool // a block of tokens is on its way
	noTokens  atomic.Bool // the disk was full when the last block was asked for
	draining  atomic.Bool

	stateMu   sync.Mutex  // guards state and lockStats
	state     checkpoint  // what the next checkpoint says, up to the last applied batch
	lockStats lease.Stats // as of the last batch

	ckptMu          sync.Mutex // held while a checkpoint runs
	ckpt            *checkpointFile
	checkpointEvery int64
	checkpointed    atomic.Uint64 // bytes ever logged at the last checkpoint
	ckptCount       atomic.Uint64
	ckptTook        atomic.Int64 // ns
	ckptAt          atomic.Int64 // wall time in ns

	ckptSegment atomic.Uint64 // in which the last checkpoint lies

	compactMu    sync.Mutex // held while a segment is compacted
	compactRatio float64
	compactRuns  atomic.Uint64
	compactMoved atomic.Uint64 // bytes
	compactFreed atomic.Uint64
	segment      int64 // Options.Segment

	fs       disk.FS
	dir      string
	snapshot snapshots

	growMu    [len(slots.Classes)]sync.Mutex // held while the table of a class grows
	growLogMu sync.Mutex                     // held while a segment is made ready
	room      room                           // of a full disk

	commits atomic.Uint64

	growWake, ckptWake, compactWake chan struct{}
	closing                         chan struct{} // closed to end the background goroutines
	background                      sync.WaitGroup
	writerDone                      chan struct{}

	filesMu   sync.Mutex // guards filesGone, and background's counter while it is false
	filesGone bool       // nobody may begin to use the files

	failOnce sync.Once
	failure  atomic.Pointer[error]
	failed   chan struct{}
}

// Open makes or recovers a data directory and starts to take operations. The
// error is a *disk.LockedError where another process has the directory, and a
// *Damage where something that was durable is not there any more.
func Open(o Options) (*DB, error) {
	o.defaults()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(&o)
	if err != nil {
		return nil, err
	}
	d, err := open(&o)
	if err != nil {
		if lock != nil {
			err = errors.Join(err, lock.Close())
		}
		return nil, err
	}
	d.lock = lock
	d.background.Add(3)
	go d.grow()
	go d.checkpoints()
	go d.compactions()
	go d.write()
	wake(d.growWake)
	wake(d.compactWake)
	return d, nil
}

func lockDir(o *Options) (io.Closer, error) {
	l, ok := o.FS.(disk.Locker)
	if !ok {
		return nil, nil
	}
	return l.Lock(o.Dir+"/LOCK", o.Who)
}

// fail stops writes for good: what the disk holds is no longer known. Whoever
// watches Failed ends the process; the next start recovers.
func (d *DB) fail(err error) {
	d.failOnce.Do(func() {
		err := fmt.Errorf("%w: %w", ErrStopped, err)
		d.failure.Store(&err)
		d.queue.close(ErrStopped)
		d.logger.Error("writes are stopped", "err", err)
		close(d.failed)
	})
}

// Failed is closed once writes are stopped.
func (d *DB) Failed() <-chan struct{} { return d.failed }

// Err says why writes are stopped; nil while they are not.
func (d *DB) Err() error {
	if p := d.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Drain makes whoever waits for a lock, now or later, get ErrStopping. Other
// calls go on.
func (d *DB) Drain() {
	d.draining.Store(true)
	d.queue.signal()
	d.mutexes.Drain()
}

// Close refuses new operations with ErrStopping, answers those on their way,
// writes a last checkpoint and closes the files. After a failed disk it only
// closes and returns why.
func (d *DB) Close() error {
	d.Drain()
	d.queue.close(ErrStopping)
	<-d.writerDone
	d.filesMu.Lock()
	d.filesGone = true
	d.filesMu.Unlock()
	close(d.closing)
	d.background.Wait()
	// What is left of the block of tokens need not be skipped; nobody gets one now.
	d.tokens.limit.Store(0)
	d.stateMu.Lock()
	d.state.Tokens = uint64(d.tokens.last.Load() + 1)
	d.stateMu.Unlock()
	// A failure is an error of this last checkpoint too.
	err := d.checkpointAs(true)
	d.timer.Stop()
	err = errors.Join(err, d.log.Close(), d.tables.Close(), d.ckpt.f.Close())
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// useFiles has Close wait for background.Done, for a caller that makes room beside
// the writer. It returns false if the files are closed, or about to be.
func (d *DB) useFiles() bool {
	d.filesMu.Lock()
	defer d.filesMu.Unlock()
	if d.filesGone {
		return false
	}
	d.background.Add(1)
	return true
}

// Stats are plain numbers for whoever watches.
type Stats struct {
	Queue          int // operations that the writer has not yet taken
	Commits        uint64
	Tables         slots.Stats
	Log            wal.Stats
	Values         kvlog.ValueStats
	Compaction     CompactionStats
	Locks, Mutexes lease.Stats
	Pending        uint64 // bytes logged since the last checkpoint
	Checkpoints    uint64
	CheckpointTook time.Duration // of the last
	CheckpointAt   time.Time     // when the last ended
	Stopped        bool          // the disk failed
	DiskFull       bool          // the last attempt to make files larger found no room
}

// Stats returns the numbers of now.
func (d *DB) Stats() Stats {
	d.stateMu.Lock()
	locks := d.lockStats
	d.stateMu.Unlock()
	return Stats{
		Locks:          locks,
		Mutexes:        d.mutexes.Stats(),
		Queue:          d.queue.len(),
		Commits:        d.commits.Load(),
		Tables:         d.tables.Stats(),
		Log:            d.log.Stats(),
		Values:         d.values.Stats(d.clock.now()),
		Compaction:     CompactionStats{Runs: d.compactRuns.Load(), MovedBytes: d.compactMoved.Load(), Freed: d.compactFreed.Load()},
		Pending:        d.pending(),
		Checkpoints:    d.ckptCount.Load(),
		CheckpointTook: time.Duration(d.ckptTook.Load()),
		CheckpointAt:   time.Unix(0, d.ckptAt.Load()),
		Stopped:        d.Err() != nil,
		DiskFull:       d.room.full.Load(),
	}
}

// pending is how many bytes were logged since the last checkpoint.
func (d *DB) pending() uint64 {
	last := d.checkpointed.Load() // read first: it follows the other
	return d.log.Stats().Appended - last
}

func slotKey(kind uint8, k Key) slots.Key { return slots.Key{Kind: kind, Acc: k.Acc, ID: k.ID} }
