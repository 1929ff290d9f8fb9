package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// All policy for a full disk. kvlog/wal/reserve.go draws what the log holds back; this
// file decides who may still write, and makes room:
//
//	                 no blocks for a reserve           the log enters its last segment
//	  ┌─────────┐  ─────────────────────────►  ┌──────┐  ───────────────────►  ┌──────┐
//	  │ roomy   │                              │ full │                        │ last │
//	  └─────────┘  ◄─────────────────────────  └──────┘  ◄───────────────────  └──────┘
//	                 the reserve is made                 a segment was freed
//
//	roomy   everything is written
//	full    a call that needs more than is left of the active segment asks for room,
//	        and gets ErrFull if none can be made; calls that free go on (deletes,
//	        unlocks, moves)
//	last    the same, but deletes leave the room that compaction needs to free the
//	        segment with most garbage; nearly all until it is known which that is
//
// A call that lacks room is handed to one of two keepers, goroutines that make room and submit
// the call again: one for the log, one for the tables. The keeper of the log first tries for
// blocks and lets a checkpoint free segments that nothing needs. Then it compacts one segment
// at a time, until there is room or none of them has enough garbage. If the active segment
// has, the log goes on in the next one, so that it can be compacted too. A segment that was
// freed becomes the log's next one before anybody else gets a byte of it. In state last,
// compaction also begins before a call lacks room, so that deletes have not used up the room
// for it.
//
// For a delete that lacks room, a segment is compacted even if that frees almost nothing.
// Otherwise deletes that are spread over many segments would fill the last one with tombstones
// before any segment has much garbage.
//
// A copy-on-write file system may have no room for a batch although the log has. Such a batch
// is undone, and its calls are handed to the keeper of the log too; see overwrite.go.
//
// A call is refused only after all of this was tried, so the next call works as soon as there
// is room. Ahead of need, it is tried at most once every againAfter.
type room struct {
	s *Store

	// Of the batch that is being decided; used by the leader.
	short, last   bool   // something is to be prepared; there is no segment ready after this one
	free, reserve int    // bytes that a batch may take, without and with what is held back
	entered       uint64 // the last segment for which keep was set
	seen          uint64 // how often the log had grown before free and reserve were read

	mu        sync.Mutex     // guards what follows
	forLog    []*commit.Call // calls that lack room in the log
	before    uint64         // how often the log had grown when the first of them was found to
	forDisk   []*commit.Call // calls whose batch found the disk full
	forTables []tableCall    // calls that lack a slot

	logWake, tableWake chan struct{}

	full   atomic.Bool   // the last attempt to get room found the disk full
	tried  atomic.Int64  // when that was: wall time in ns
	keep   atomic.Int64  // in state last: bytes that the next compaction needs
	looked atomic.Uint64 // in state last: bytes ever logged when compaction was woken
}

const (
	// againAfter is the pause between attempts to get room ahead of need on a full disk.
	againAfter = time.Second
	// leastGain is the least gain in bytes for which a segment is compacted so that
	// deletes can go on.
	leastGain = 512
)

func newRoom(s *Store) *room {
	return &room{s: s, logWake: make(chan struct{}, 1), tableWake: make(chan struct{}, 1)}
}

// Begin computes how many bytes a batch may take.
func (r *room) Begin() (reserve int) {
	// Read this before the room, which may grow in between.
	r.seen = r.s.Log.Grown()
	r.short = r.s.Log.NeedsPrepare()
	segment, size := r.s.Log.LastRoom()
	if r.last = size > 0; r.last && segment != r.entered {
		// Until compaction knows what it needs, that may be nearly everything.
		r.entered = segment
		r.keep.Store(size - leastGain)
	}
	r.free, r.reserve = r.s.Log.Room(false), r.s.Log.Room(true)
	return r.reserve
}

// Blocked reports whether the log has no room to end a hold because the disk is
// full, and not because the next segment is only being made.
func (r *room) Blocked() bool { return r.full.Load() }

// Fits reports whether a call has the room that it needs.
func (r *room) Fits(c *commit.Call, used int, empty bool) commit.Verdict {
	need, have := needs(c), r.free
	if c.Op.Frees() {
		have = r.reserve
	}
	m, moves := c.Op.(*Move)
	switch {
	case r.last && moves:
		need = m.Rest // the reserve must not be spent on a compaction that cannot be finished
		r.keep.Store(int64(m.Rest) + moveHeader)
	case need == 0:
		return commit.Decide
	case r.last && c.Op.Frees() && !c.Reserve:
		need += int(r.keep.Load()) // left for a compaction that can be finished
	}
	switch {
	case used+need <= have:
		return commit.Decide
	case !empty:
		return commit.NextBatch
	case r.short:
		return commit.Lacking
	}
	return commit.Full // not even an empty segment has enough room
}

func needs(c *commit.Call) int { return max(c.Op.Size(), c.Need) }

// Lacks hands a call to a keeper. Compaction does not wait for room: it makes it.
func (r *room) Lacks(c *commit.Call, why *commit.NoRoom) {
	if compacts(c) {
		answer(c, commit.ErrFull)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if why.Class == commit.LogRoom {
		if len(r.forLog) == 0 {
			r.before = r.seen
		}
		r.forLog = append(r.forLog, c)
		wake(r.logWake)
	} else {
		r.forTables = append(r.forTables, tableCall{c, why})
		wake(r.tableWake)
	}
}

func answer(c *commit.Call, err error) {
	c.Err = err
	c.Done(c)
}

// again submits a call again.
func (r *room) again(c *commit.Call) {
	if err := r.s.writer.Queue(c); err != nil {
		answer(c, err)
	}
}

// refuse answers a call for which no room could be made because of err.
func (r *room) refuse(c *commit.Call, err error) {
	switch {
	case r.s.writer.Err() != nil:
		err = commit.ErrStopped
	case disk.IsNoDescriptor(err):
		err = commit.ErrDescriptors
	default:
		err = commit.ErrFull
	}
	answer(c, err)
}

// keepLog keeps a segment ready ahead of need, and makes room in the log for the
// calls that lack it.
func (r *room) keepLog() {
	defer r.s.background.Done()
	for r.s.wait(r.logWake) {
		// Do not take the room for which a batch is waiting.
		if !r.overwrites() && r.s.Log.NeedsPrepare() && r.prepare() == nil {
			r.s.writer.Wake() // the expiry of a hold may wait for this
		}
		r.serveLog()
		r.serveOverwrites()
	}
	r.serveLog()
	r.serveOverwrites()
}

func (r *room) serveLog() {
	for {
		r.mu.Lock()
		calls, before := r.forLog, r.before
		r.forLog = nil
		r.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		least, frees := needs(calls[0]), false
		for _, c := range calls {
			least = min(least, needs(c))
			frees = frees || c.Op.Frees()
		}
		err := r.makeLogRoom(least, frees, before)
		for _, c := range calls {
			switch {
			case err == nil:
				r.again(c)
			case disk.IsFull(err) && c.Op.Frees() && !c.Reserve:
				c.Reserve, c.Need = true, 0 // the call does as little as it can
				r.again(c)
			default:
				r.refuse(c, err)
			}
		}
	}
}

// makeLogRoom makes room in the log for calls, each of which needs at most the given number of
// bytes. frees is whether one of them gives room back in the end. before is how often the log
// had grown when they were found to lack room. If it returns nil, the calls can be tried
// again.
func (r *room) makeLogRoom(need int, frees bool, before uint64) error {
	err := r.prepare()
	if !disk.IsFull(err) {
		return err
	}
	r.s.compacting.Lock()
	defer r.s.compacting.Unlock()
	least := r.worthwhile(need)
	if frees {
		least = leastGain
	}
	if r.s.Log.Grown() != before || r.spend(least) {
		return nil
	}
	return err
}

// prepare gives the log its next segment and its reserve. On a full disk a
// checkpoint may free segments first.
func (r *room) prepare() error {
	r.s.growing.Lock()
	defer r.s.growing.Unlock()
	err := r.s.Log.Prepare()
	if unneeded := r.s.unneeded(); disk.IsFull(err) && len(unneeded) > 0 {
		r.s.dropBackups(unneeded...)
		if err := r.s.Checkpoint(); err != nil {
			return err
		}
		err = r.s.Log.Prepare()
	}
	r.noteFull(err)
	return r.check(err)
}

// check stops writes for an error that is neither a full disk nor a lack of descriptors.
func (r *room) check(err error) error {
	if err != nil && !disk.IsFull(err) && !disk.IsNoDescriptor(err) && !errors.Is(err, wal.ErrClosed) {
		r.s.writer.Fail(err)
	}
	return err
}

// mayGrow reports whether to try to get room ahead of need. On a full disk, a call that lacks
// room tries anyway.
func (r *room) mayGrow() bool {
	return !r.full.Load() || time.Since(time.Unix(0, r.tried.Load())) >= againAfter
}

// noteFull notes whether the disk is full, and logs it.
func (r *room) noteFull(err error) {
	if disk.IsNoDescriptor(err) {
		r.s.o.Log.Warn("no file descriptor left: the log cannot grow, and will be tried again", "err", err)
	}
	full := disk.IsFull(err) && r.s.writer.Err() == nil
	r.tried.Store(time.Now().UnixNano())
	was := r.full.Swap(full)
	if !full || was {
		return
	}
	wake(r.s.compactWake)
	r.s.warnOrError(err, "writes that need more room will be refused")
}

// noteLast wakes compaction from time to time in the last segment of a full disk.
func (r *room) noteLast(appended uint64) {
	switch {
	case !r.full.Load() || !r.s.Log.Last():
		r.looked.Store(0)
	case appended-r.looked.Load() >= uint64(r.s.Log.SegmentSize()/64):
		r.looked.Store(appended)
		wake(r.s.compactWake)
	}
}

// worthwhile returns the least gain for which a segment is compacted on a full disk, for a
// call that needs the given number of bytes. It is more than the headers of the batches of
// moves, otherwise compaction would go on for ever.
func (r *room) worthwhile(need int) int64 {
	segment := r.s.Log.SegmentSize()
	least := max(segment/64, min(8<<10, segment/8))
	return max(least, min(int64(need), segment/8))
}

// spend compacts the segment that gives most room on a full disk, at least the given number of
// bytes, into the reserve. It returns false if there is no such segment. It also sets how much
// deletes must leave in the last segment. The caller holds s.compacting.
func (r *room) spend(least int64) bool {
	s := r.s
	// Segments before the last checkpoint can be compacted.
	if s.writer.Position().Log.Segment > s.CheckpointSegment() && s.Checkpoint() != nil {
		return false
	}
	victim, ok, err := s.Values.Spendable(s.CheckpointSegment(), s.Clock.Now())
	if err != nil {
		s.o.Log.Error("the segments cannot be compared for compaction", "err", err)
		return false
	}
	moved := s.moveSize(victim.Live)
	if ok = ok && victim.Gain >= moved-victim.Live+leastGain && moved+moveHeader <= r.left(); ok {
		r.keep.Store(moved + moveHeader) // a batch has its header before anything is decided
	} else {
		// Deletes go on making garbage, so it is looked for again soon.
		r.keep.Store(max(r.left()-s.Log.SegmentSize()/64, 0))
	}
	if !ok || victim.Gain < least {
		if victim, ok = r.sealActive(least); !ok {
			return false
		}
		moved = s.moveSize(victim.Live)
	}
	s.dropBackups(victim.Segment)
	return s.compactSegment(victim.Segment, int(moved))
}

// left returns how many bytes of moves the log has room for.
func (r *room) left() int64 {
	return max(r.s.Log.Left(r.s.writer.Position().Log), r.s.Log.NextRoom())
}

// sealActive makes the log continue in its next segment, so that the active one can be
// compacted, if that gives the given number of bytes of room.
func (r *room) sealActive(least int64) (victim kvlog.Victim, ok bool) {
	s := r.s
	next := s.Log.NextRoom()
	victim = s.Values.Active(s.writer.Position().Log, next, s.Clock.Now())
	moved := s.moveSize(victim.Live)
	if victim.Gain-(moved-victim.Live) < least || moved+moveHeader+sealSize > next {
		return victim, false
	}
	r.keep.Store(moved + moveHeader)
	return victim, s.writer.Do(seal{}) == nil && s.Checkpoint() == nil && s.CheckpointSegment() > victim.Segment
}

// moveHeader is an upper bound of the bytes of a batch of moves in addition to the moved
// records.
const moveHeader = 128

// moveSize is an upper bound of the bytes that records of the given size take in the log when
// they are moved. Of two consecutive chunks, one is more than half full, except for one that
// fills a segment.
func (s *Store) moveSize(live int64) int64 {
	if live == 0 {
		return 0
	}
	return live + moveHeader*(3+2*live/int64(s.moveChunk()))
}
