package db

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"clouddragon/internal/lease"
	"clouddragon/slots"
)

// The commit, by the one whose turn it is to write; nobody else changes anything:
//
//	take all that waits in the queue
//	decide each operation against the tables and what this batch has decided so far
//	put the images of what changed into one batch of records
//	append the batch to the log: one write, one fdatasync
//	copy the images into the tables
//	answer, refusals too: they may rest on what this batch decided
//
// Nothing is answered or can be read before it is durable, and the tables never
// hold what the log does not. What is asked meanwhile is the next batch.
//
// Whoever asks while it is nobody's turn writes a batch himself, so that one who
// is alone need not wait until another wakes up, twice. Then it is the turn of
// this goroutine, the standby, if anything is left, until nothing is.
func (d *DB) write() {
	defer close(d.writerDone)
	for rang := false; ; {
		rang = d.idle() || rang
		if !d.queue.begin() {
			continue
		}
		if rang {
			rang = false
			d.markQuiet()
		}
		for over := false; !over; over = d.queue.end() {
			for d.round() {
			}
			if d.closed {
				return // nobody else gets a turn
			}
			d.arm()
		}
	}
}

// lead is a caller's turn: one batch. What does not fit into it is left to the
// standby.
func (d *DB) lead() {
	defer func() {
		if p := recover(); p != nil {
			// Half a batch may be done: nobody above may go on from here.
			go panic(fmt.Sprintf("%v\n%s", p, debug.Stack()))
			select {}
		}
	}()
	d.round()
	d.arm()
	d.queue.yield(len(d.rest) > 0)
}

// round commits one batch of what waits and of what is over by now. It returns
// false if there was nothing to do.
func (d *DB) round() bool {
	if len(d.rest) == 0 {
		// Whoever is ready to ask does so first: the sync is shared by more.
		runtime.Gosched()
		d.todo, d.closed = d.queue.take(d.todo)
		d.rest = d.todo
		d.moment = d.clock.read() // not before anything was asked that is decided now
		if d.draining.Load() || d.closed {
			d.refuseWaiters()
		}
	}
	if len(d.rest) == 0 && (d.closed || !d.due()) {
		return false
	}
	d.rest = d.rest[d.commit(d.rest):]
	if len(d.rest) == 0 {
		clear(d.todo)
	}
	return true
}

// due says whether a lock's hold or somebody's wait for one is over, or the
// moment is to be noted.
func (d *DB) due() bool {
	at, ok := d.locks.Next()
	return (ok && at <= d.now || d.noteDue()) && !d.starved
}

// noteDue says whether the moment goes into the log though nothing needs it: the
// wall clock has stepped, or the last moment in the log is old. Only a step may
// use the room that is held back for deletes.
func (d *DB) noteDue() bool {
	stepped := d.noted.stepped(d.moment) != 0
	return (stepped || d.now-d.noted.now >= int64(clockNote)) && d.log.Room(stepped) >= opRoom
}

// refuseWaiters answers whoever waits for a lock: there is no more time for that.
func (d *DB) refuseWaiters() {
	d.locks.Drain(func(_ lease.Key, w *lease.Waiter) {
		o := w.Data.(*op)
		o.err = ErrStopping
		if d.Err() != nil {
			o.err = ErrStopped
		}
		o.done <- struct{}{}
	})
}

// needSlot and errNeedLog send an operation back to its caller, who makes room
// and submits it again: the writer waits for nothing but the log.
var (
	needSlot   = [len(slots.Classes)]error{}
	errNeedLog = errors.New("the log has no room")
)

func init() {
	for i := range needSlot {
		needSlot[i] = errors.New("the table has no free slot")
	}
}

// maxBatch bounds a batch in bytes, so that the first caller of a long queue
// does not wait for all of it.
const maxBatch = 4 << 20

// commit decides and makes durable as many operations as fit into one batch,
// answers them and returns how many it took. What is over by itself goes first.
func (d *DB) commit(todo []*op) int {
	d.batch.reset()
	d.batch.moment = d.moment
	d.answers = d.answers[:0]
	n := 0
	if d.Err() != nil {
		// Their batch was never begun.
		for n = range todo {
			todo[n].err = ErrStopped
		}
		d.answers, n = append(d.answers, todo...), len(todo)
		d.starved = true
	} else {
		n = d.decideAll(todo)
	}
	if d.batch.encode() {
		if err := d.append(); err != nil {
			for _, o := range d.answers {
				o.err = ErrUnknown
			}
		}
	}
	if locks := d.locks.Stats(); locks != d.lockStats {
		d.stateMu.Lock()
		d.lockStats = locks
		d.stateMu.Unlock()
	}
	for _, o := range d.answers {
		o.done <- struct{}{}
	}
	clear(d.answers)
	return n
}

// decideAll decides as much as fits into one batch, at least one operation, and
// returns how many.
func (d *DB) decideAll(todo []*op) int {
	short, last := d.log.NeedsPrepare(), d.log.Last() // asked before the room: it may come meanwhile
	room, held := d.log.Room(false), d.log.Room(true)
	d.expire(held)
	// Without room for a mark on an expired lock the next commit tries again.
	d.starved = d.batch.bytes()+opRoom > held
	if d.starved && d.room.full.Load() { // else the next segment is only being made
		d.locks.TimeOut(d.now, d.timedOutFull)
	}
	d.batch.dated = d.batch.dated || d.noteDue() && !d.starved
	for n, o := range todo {
		have := room
		if o.frees() {
			have = held
		}
		switch {
		case o.verb == verbCancel && d.leave(o.target): // which needs no room
		case o.verb == verbHolder || d.batch.bytes()+d.needs(o, last) <= have:
			d.decide(o)
		case n > 0 || d.batch.size > 0:
			return n
		case short:
			o.err = errNeedLog
		default:
			o.err = ErrFull // a fresh segment is ready, and it would not do
		}
		if !o.queued {
			d.answers = append(d.answers, o)
		}
		if d.batch.bytes() >= maxBatch {
			return n + 1
		}
	}
	return len(todo)
}

// append makes the batch durable and applies it.
func (d *DB) append() error {
	began := time.Now()
	pos, err := d.log.Append(&d.batch.records)
	if err != nil {
		d.fail(err)
		return err
	}
	took := time.Since(began)
	d.tables.Apply(d.batch.images)
	if err := d.tables.Err(); err != nil {
		d.fail(err) // the log has the batch: the next start applies it
		return err
	}
	start := pos
	start.Offset -= int64(d.batch.records.Len())
	d.values.Apply(start, d.batch.steps)
	d.note()
	d.stateMu.Lock()
	d.state.Log = pos
	d.state.Moment = d.noted
	d.state.Version = d.batch.versions
	if d.batch.tokens != 0 {
		d.state.Tokens = uint64(d.batch.tokens)
		d.tokens.limit.Store(d.batch.tokens)
	}
	d.stateMu.Unlock()
	d.marked, d.appended = d.batch.isMark(), began.Add(took)
	d.commits.Add(1)
	if d.onCommit != nil {
		d.onCommit(Commit{Operations: len(d.answers), Bytes: d.batch.records.Len(), Sync: took})
	}
	d.noteLast(d.batch.records.Len())
	d.wakeMaintenance()
	return nil
}

// note takes over the moment that the batch has made durable.
func (d *DB) note() {
	if !d.batch.dated {
		return
	}
	if step := d.noted.stepped(d.batch.moment); step != 0 {
		d.logger.Warn("the wall clock was set; nothing that is held or stored ends earlier or later for it", "forward", step.Round(time.Millisecond))
	}
	d.noted = d.batch.moment
}

func (d *DB) decide(o *op) {
	switch o.verb {
	case verbAdd:
		d.decideAdd(o)
	case verbReset:
		d.decideReset(o)
	case verbLock:
		d.decideLock(o)
	case verbUnlock:
		d.decideUnlock(o)
	case verbHolder:
		d.decideHolder(o)
	case verbCancel:
		d.decideCancel(o)
	case verbReserve:
		d.decideReserve()
	case verbSet:
		d.decideSet(o)
	case verbDelete:
		d.decideDelete(o)
	case verbMove:
		d.decideMove(o)
	}
}

// idle waits until there is something to do, and says whether the timer rang.
func (d *DB) idle() (rang bool) {
	select {
	case <-d.queue.wake:
		return false
	case <-d.timer.C:
		return true
	}
}

// arm sets the timer to what comes by itself, at the end of a turn: a mark, the
// end of a hold or a wait, or the next look at the clocks.
func (d *DB) arm() {
	wait := clockTick
	if !d.marked {
		wait = min(wait, d.markAfter-time.Since(d.appended))
	}
	if at, ok := d.locks.Next(); ok {
		over := time.Duration(at - d.clock.now())
		if d.starved {
			over = starvedWait
		}
		wait = min(wait, over)
	}
	if d.starved {
		d.starved = false
		wake(d.growWake) // there may be room again
	}
	d.timer.Reset(wait)
}

// markQuiet puts a mark behind the last batch after a moment of quiet: a batch
// with another behind it was durable, so damage in it is never taken for a torn
// tail.
func (d *DB) markQuiet() {
	if !d.marked && d.queue.len() == 0 && time.Since(d.appended) >= d.markAfter {
		d.mark()
	}
}

func (d *DB) mark() {
	d.marked = true
	if d.log.Room(true) < opRoom || d.Err() != nil {
		return
	}
	d.batch.reset()
	d.batch.moment, d.batch.dated = d.clock.read(), true
	d.batch.encode()
	pos, err := d.log.Append(&d.batch.records)
	if err != nil {
		d.fail(err)
		return
	}
	d.note()
	d.stateMu.Lock()
	d.state.Log, d.state.Moment = pos, d.noted
	d.stateMu.Unlock()
}

// do submits an operation and waits for its answer, making room where the
// writer found none.
func (d *DB) do(o *op) error {
	for {
		lead, err := d.queue.put(o)
		if err != nil {
			return err
		}
		if lead {
			d.lead()
		}
		d.await(o)
		if o.err == nil {
			return nil
		}
		if err := d.roomFor(o); err != nil {
			return err
		}
		o.err = nil
	}
}
