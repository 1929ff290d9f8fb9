// Package store owns the files of a data directory: it opens and recovers them,
// checkpoints and compacts them, keeps room ready, and checks them. It knows no
// API: what a record of a slot means is the business of package db. recover.go
// tells how a start goes, room.go what happens on a full disk.
package store

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Options say where a data directory is and how large its files are.
type Options struct {
	FS  disk.FS // nil: the operating system's
	Dir string  // the data directory, made if missing
	Who string  // is written into the lock file, for a second server to name the first

	Segment int64 // bytes of a log segment, a multiple of 4096; 0: 64 MiB
	// LeastSegment is the least size of a segment on a small disk, as wal.Options.Least.
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
	// Pause is what a backup calls to leave room for writes; nil: time.Sleep.
	Pause func(time.Duration)

	Files int          // files of log segments that may be open for reading at a time; 0: 512
	Clock commit.Clock // nil: the machine's
	Log   *slog.Logger // nil: none

	Progress Progress // of Open and Verify; nil: nobody looks
	meter    *meter   // made of Progress
}

func (o *Options) defaults() {
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.Segment == 0 {
		o.Segment = wal.DefaultSegment
	}
	if o.Extent == 0 {
		o.Extent = slots.DefaultExtent
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
	if o.BackupHold == 0 {
		o.BackupHold = 4 << 30
	}
	if o.Pause == nil {
		o.Pause = time.Sleep
	}
	if o.Clock == nil {
		o.Clock = commit.MachineClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Store is an open data directory. Any goroutine may call its methods.
//
// Locks, in the order in which they are taken: compacting, checkpointing, growing
// of the log or of a table, backups.mu.
type Store struct {
	o    Options
	lock io.Closer // keeps other processes out; nil where the FS has no locks

	Tables *slots.Tables
	Log    *wal.Log
	Values *kvlog.Values
	Clock  commit.DatabaseClock

	writer *commit.Writer
	room   *room
	names  *nameIndex
	told   fullTold // when the full disk was last logged; locks itself

	growing sync.Mutex // held while a segment of the log is made ready

	compacting sync.Mutex // held while a segment is compacted
	compaction compactionCounters

	checkpointing sync.Mutex // held while a checkpoint runs; guards file, last and snapshot
	file          *checkpointFile
	last          checkpoint // the newest one
	snapshot      snapshots
	checkpoints   checkpointCounters

	backups  backups
	recovery RecoveryStats

	checkpointWake, compactWake chan struct{}
	closing                     chan struct{} // closed to end the background goroutines
	background                  sync.WaitGroup
}

// Recovered is what a start has found in the data directory.
type Recovered struct {
	State    *commit.State
	Position wal.Pos
	Tokens   *commit.Tokens
}

// Open makes or recovers a data directory. The error is a *disk.LockedError if
// another process has the directory, and a *Damage if something that was durable is
// missing or bad. Nothing runs in the background before Start.
func Open(o Options) (*Store, *Recovered, error) {
	o.defaults()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, nil, err
	}
	lock, err := lockDir(&o)
	if err != nil {
		return nil, nil, err
	}
	s, r, err := open(&o)
	if err != nil {
		if lock != nil {
			err = errors.Join(err, lock.Close())
		}
		return nil, nil, err
	}
	s.lock = lock
	return s, r, nil
}

func lockDir(o *Options) (io.Closer, error) {
	l, ok := o.FS.(disk.Locker)
	if !ok {
		return nil, nil
	}
	return l.Lock(o.Dir+"/LOCK", o.Who)
}

// NewWriter returns the store's writer, which is not started. It fills in the options
// that the store knows.
func (s *Store) NewWriter(r *Recovered, o commit.Options) *commit.Writer {
	o.State, o.Log, o.Position, o.Tokens = r.State, s.Log, r.Position, r.Tokens
	o.Room, o.Maintain, o.Logger = s.room, s.maintain, s.o.Log
	o.Clock = s.Clock
	s.writer = commit.New(o)
	return s.writer
}

// Start starts what runs in the background.
func (s *Store) Start() {
	s.background.Add(5)
	go s.room.keepLog()
	go s.room.keepTables()
	go s.runCheckpoints()
	go s.runCompactions()
	go s.keepNames()
	wake(s.room.logWake)
	wake(s.room.tableWake)
	wake(s.compactWake)
}

// Close writes a last checkpoint, which says that every token is below that one,
// and closes the files. The writer must have been closed. After a failed disk it
// only closes, and returns why. On a full one it may have to leave the checkpoint out.
func (s *Store) Close(tokens int64) error {
	close(s.closing)
	s.background.Wait()
	err := s.checkpoint(true, uint64(tokens))
	if isPutOff(err) {
		s.o.Log.Warn("disk full: the last checkpoint was not written; the next start reads more of the log", "err", err)
		err = nil
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	err := errors.Join(s.Log.Close(), s.Tables.Close(), s.file.f.Close(), s.names.Close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Stats are plain numbers for metrics.
type Stats struct {
	Tables         slots.Stats
	Log            wal.Stats
	Values         kvlog.ValueStats
	Compaction     CompactionStats
	Names          NameStats
	Pending        uint64 // bytes logged since the last checkpoint
	Checkpoints    uint64
	CheckpointTook time.Duration // of the last
	CheckpointAt   time.Time     // when the last ended
	DiskFull       bool          // the last growth of a file found the disk full
	Recovery       RecoveryStats // of the start
}

// RecoveryStats tell how a start went.
type RecoveryStats struct {
	Took  time.Duration // until the recovered state was written again
	Bytes int64         // of the log and the tables that were read
}

// Stats returns the current numbers.
func (s *Store) Stats() Stats {
	return Stats{
		Tables:         s.Tables.Stats(),
		Log:            s.Log.Stats(),
		Values:         s.Values.Stats(s.Clock.Now()),
		Compaction:     s.compaction.stats(),
		Names:          s.names.stats(),
		Pending:        s.pending(),
		Checkpoints:    s.checkpoints.count.Load(),
		CheckpointTook: time.Duration(s.checkpoints.took.Load()),
		CheckpointAt:   time.Unix(0, s.checkpoints.at.Load()),
		DiskFull:       s.room.full.Load(),
		Recovery:       s.recovery,
	}
}

// maintain tells the background goroutines what the last batch left them to do.
func (s *Store) maintain() {
	s.room.noteLast(s.Log.Stats().Appended)
	if s.room.mayGrow() {
		if s.Log.NeedsPrepare() {
			wake(s.room.logWake)
		}
		if s.lowTable() >= 0 {
			wake(s.room.tableWake)
		}
	}
	if s.pending() >= uint64(s.o.CheckpointEvery) {
		wake(s.checkpointWake)
	}
}

// wait waits for a wake-up; false means that the store closes.
func (s *Store) wait(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-s.closing:
		return false
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// checkpointCounters count since Open.
type checkpointCounters struct {
	appended atomic.Uint64 // bytes ever logged at the last checkpoint
	segment  atomic.Uint64 // in which it lies
	count    atomic.Uint64
	took, at atomic.Int64 // ns; wall time in ns
}

// pending is how many bytes were logged since the last checkpoint.
func (s *Store) pending() uint64 {
	last := s.checkpoints.appended.Load() // read first: it follows the other
	return s.Log.Stats().Appended - last
}
