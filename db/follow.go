package db

import (
	"errors"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/kvlog/wal"
)

// Mirror is a second place that has to have each batch before its calls are answered; see
// commit.Mirror.
type Mirror = commit.Mirror

// Follower is a data directory that replays another server's log, batch by batch. It can be
// read like any other, but for the queues of locks and rates, and mutexes, which are in the
// other server's memory. Every other call of its DB is refused or never returns.
type Follower struct {
	*DB
	commits *commit.Follower
	marks   bool // the log has changed the marks of moving accounts since they were read
}

// OpenFollower opens a data directory to follow another server's log. The directory was made
// from a backup of that server, or has followed it before.
func OpenFollower(o Options) (*Follower, error) {
	d, err := open(o)
	if err != nil {
		return nil, err
	}
	d.follows = true
	f := &Follower{DB: d}
	f.commits = d.store.Follow(func(kind uint8, acc, id string) {
		f.marks = f.marks || kind == 0 && acc == marksAcc && id == marksID
	})
	go d.events.run()
	return f, nil
}

// End returns where the log ends.
func (f *Follower) End() wal.Pos { return f.commits.End() }

// Append appends a batch; see commit.Follower.
func (f *Follower) Append(frame wal.Frame) (wal.Pos, error) {
	end, err := f.commits.Append(frame)
	return end, errors.Join(err, f.readMarks())
}

// readMarks reads the marks of moving accounts again if an applied batch has changed them.
func (f *Follower) readMarks() error {
	if !f.marks {
		return nil
	}
	f.marks = false
	return f.reloadMarks()
}

// Settle tells the follower that everything up to a position was answered; see commit.Follower.
func (f *Follower) Settle(answered wal.Pos) error {
	return errors.Join(f.commits.Settle(answered), f.readMarks())
}

// Release frees the segments before at, except those given, which the other server still needs.
func (f *Follower) Release(at wal.Pos, segments []uint64) error {
	return f.store.ReleaseOthers(at, segments)
}

// Close writes a last checkpoint and closes the files. The last batch may lie after the
// checkpoint, and can still be cut off.
func (f *Follower) Close() error {
	f.watchers.drain()
	close(f.events.stop)
	<-f.events.done
	f.tokens.Stop()
	return f.store.Close(int64(f.writer.Position().Tokens))
}

// Log returns the log, from which batches are sent to a follower.
func (d *DB) Log() *wal.Log { return d.store.Log }

// LogKeeper keeps the log for a server that is to follow.
type LogKeeper = store.Keeper

// KeepLog keeps the log from now on; see store.KeepLog.
func (d *DB) KeepLog() (*LogKeeper, error) { return d.store.KeepLog() }

// Time returns the database time in nanoseconds.
func (d *DB) Time() int64 { return d.store.Clock.Now() }

// NoteTokens writes the limit of tokens to the log. A start, a restore and a promotion write it
// only to CHECKPOINT, which a follower does not get.
func (d *DB) NoteTokens() error { return d.writer.Do(commit.ReserveTokens{}) }

// Refuse answers the calls of clients that wait for the writer with an error: nothing of
// them is done. Those that the writer has taken already go on.
func (d *DB) Refuse(err error) {
	d.writer.Refuse(err, func(op commit.Op) bool {
		switch op.(type) {
		case *LockLeave, *RateLeave: // of clients that are gone
			return false
		}
		_, ok := op.(Operation)
		return ok
	})
}

// ofClient reports whether a client waits for an operation, and for nothing that it stands for.
func ofClient(op commit.Op) bool {
	o, ok := op.(Operation)
	_, list := op.(*lockList)
	return list || ok && o.account() != ""
}

// Segments returns the segments that a follower needs once its log has reached the position
// at.
func (d *DB) Segments() (at wal.Pos, numbers []uint64) { return d.store.Segments() }

// Ends returns the ID of a data directory and the ends of the last batches of its log; see store.Ends.
func Ends(dir string, most int) (id [16]byte, ends []wal.Pos, err error) {
	return store.Ends(store.Options{Dir: dir}, most)
}

// Cut cuts off the log of a data directory that no server has open; see store.Cut.
func Cut(dir string, at wal.Pos, size int64) error {
	return store.Cut(store.Options{Dir: dir}, at, size)
}
