package commit

import (
	"errors"
	"time"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// commit decides as many calls as fit into one batch, makes the batch durable and answers
// the calls. Expired holds and waits are handled first. It returns how many calls it took,
// and whether it did anything.
func (w *Writer) commit(todo []*Call, refuse bool) (taken int, did bool) {
	tx := w.tx
	tx.reset()
	w.decided = w.decided[:0]
	if refuse {
		w.refuseWaiters()
		tx.forget()
	}
	begin := tx.save()
	if w.Err() != nil {
		// The batch of these calls was never begun.
		for _, c := range todo {
			tx.Answer(c, ErrStopped)
		}
		taken, w.expiryBlocked = len(todo), true
	} else {
		taken = w.decideAll(todo)
	}
	did = w.write(&begin) || taken > 0 || len(tx.answers) > 0
	if w.late == nil {
		w.finish()
	}
	return taken, did
}

// finish ends a batch, and answers its calls.
func (w *Writer) finish() {
	w.tx.forget()
	for _, p := range w.o.Parts {
		p.Committed()
	}
	w.answer()
}

// answer answers the calls of the batch.
func (w *Writer) answer() {
	tx := w.tx
	for i := range tx.answers {
		a := &tx.answers[i]
		a.call.Err = a.err
		a.call.Done(a.call)
	}
	clear(tx.answers)
	tx.answers = tx.answers[:0]
	clear(w.decided)
	w.decided = w.decided[:0]
}

// write makes the batch durable and applies it, and reports whether there was
// anything to write. If the disk is full, everything since begin is undone.
func (w *Writer) write(begin *savepoint) bool {
	tx := w.tx
	tx.encode()
	if tx.records.Records() == 0 {
		return false
	}
	err := w.append()
	if errors.Is(err, wal.ErrFull) {
		w.undoBatch(begin, err)
		return false
	}
	if err != nil && w.late == nil {
		w.answersUnknown()
	}
	return true
}

// answersUnknown makes every answer of the batch that its outcome is unknown.
func (w *Writer) answersUnknown() {
	tx := w.tx
	for i := range tx.answers {
		tx.answers[i].err = ErrUnknown
	}
}

// undoBatch undoes a batch that found the disk full, and hands its calls to Room. Calls that
// need no room in the log are decided again without the others. Expired things are tried again
// after BlockedWait.
func (w *Writer) undoBatch(begin *savepoint, err error) {
	w.tx.undo(begin)
	w.expiryBlocked, w.refused = true, time.Now()
	var unwritten []*Call
	for _, c := range w.decided {
		if c.Op.Size() > 0 || !w.decideFree(c) {
			c.Unwritten++
			unwritten = append(unwritten, c)
		}
	}
	w.o.Room.Unwritten(unwritten, err)
}

// decideFree decides a call if it needs no room in the log. Otherwise it changes nothing and
// returns false.
func (w *Writer) decideFree(c *Call) bool {
	tx := w.tx
	s := tx.save()
	tx.call = c
	err := w.ask(c.Op)
	tx.call = nil
	if tx.size > s.size || tx.records.Records() > 0 || tx.tokenLimit != 0 {
		tx.undo(&s)
		return false
	}
	if err != ErrWaiting {
		tx.Answer(c, err)
	}
	return true
}

// refuseWaiters answers all calls that wait for a lock, because the server stops.
func (w *Writer) refuseWaiters() {
	err := ErrStopping
	if w.Err() != nil {
		err = ErrStopped
	}
	for _, p := range w.o.Parts {
		p.Drain(w.tx, err)
	}
}

// decideAll decides as many calls as fit into one batch, at least one, and returns how many.
func (w *Writer) decideAll(todo []*Call) int {
	tx := w.tx
	w.expire(w.o.Room.Begin())
	if !w.expiryBlocked && w.noteDue() {
		tx.Date()
	}
	for i, c := range todo {
		if !w.decideOne(c, i) {
			return i
		}
		if tx.bytes() >= MaxBatch {
			return i + 1
		}
	}
	return len(todo)
}

// decideOne decides a call, the i-th of the batch, or hands it to Room. It returns
// false if the call has to be in the next batch.
func (w *Writer) decideOne(c *Call, i int) bool {
	tx := w.tx
	for {
		empty := i == 0 && tx.records.Records() == 0 && tx.size == 0
		switch w.o.Room.Fits(c, tx.bytes(), empty) {
		case Decide:
			if w.decide(c) {
				return true
			}
			// The call needs more than its Size; check for room again.
		case NextBatch:
			return false
		case Lacking:
			w.o.Room.Lacks(c, &NoRoom{Class: LogRoom})
			return true
		case Full:
			w.decided = append(w.decided, c)
			tx.Answer(c, ErrFull)
			return true
		}
	}
}

// decide decides one call. If the call needs more room than it said, decide changes nothing and
// returns false.
func (w *Writer) decide(c *Call) bool {
	tx := w.tx
	before := tx.bytes()
	s := tx.save()
	tx.call = c
	err := w.ask(c.Op)
	tx.call = nil
	if need := tx.bytes() - before; need > max(c.Op.Size(), c.Need) {
		c.Need = need
		if w.o.Room.Fits(c, before, false) != Decide {
			tx.undo(&s)
			return false
		}
	}
	if err != nil && err != ErrWaiting {
		tx.undo(&s)
	}
	if lacks, ok := err.(*NoRoom); ok {
		w.o.Room.Lacks(c, lacks)
		return true
	}
	w.decided = append(w.decided, c)
	if err != ErrWaiting {
		tx.Answer(c, err)
	}
	return true
}

// ask decides an operation if it is admitted.
func (w *Writer) ask(op Op) error {
	if w.o.Admit != nil {
		if err := w.o.Admit(op); err != nil {
			return err
		}
	}
	return op.Decide(w.tx)
}

// expire lets the Parts decide what has expired, as far as the log has room.
func (w *Writer) expire(reserve int) {
	tx := w.tx
	tx.expired = true
	// After a batch that found the disk full, the calls come first for a while.
	w.expiryBlocked = time.Since(w.refused) < BlockedWait
	for _, p := range w.o.Parts {
		for !w.expiryBlocked && tx.bytes() < MaxBatch {
			if at, ok := p.Next(); !ok || at > tx.Now() {
				break
			}
			// If there is no room to expire a thing, the next batch tries again.
			if w.expiryBlocked = tx.bytes()+SlotChange > reserve; !w.expiryBlocked {
				w.expiryBlocked = !w.expireOne(p, reserve)
			}
		}
	}
	if w.expiryBlocked && w.o.Room.Blocked() {
		for _, p := range w.o.Parts {
			p.TimeOut(tx)
		}
	}
	tx.expired = false
}

// expireOne lets a Part decide one thing that has expired. It returns false if there is no
// room for it. On a full disk the Part does as little as it can.
func (w *Writer) expireOne(p Part, reserve int) bool {
	tx := w.tx
	try := func() (NoRoom, bool) {
		s := tx.save()
		lacks := NoRoom{Class: LogRoom}
		err := p.Expire(tx)
		if err == nil && tx.bytes() <= reserve {
			return lacks, true
		}
		if e, ok := err.(*NoRoom); ok {
			lacks = *e
		}
		tx.undo(&s)
		return lacks, false
	}
	lacks, done := try()
	if done {
		return true
	}
	// Ask for room first. It is scarce only if the same thing was lacking before.
	asked := lacks == w.lacks
	w.lacks = lacks
	if lacks.Class != LogRoom {
		w.o.Room.LacksSlot(&lacks)
	}
	if !asked || !w.o.Room.Blocked() {
		return false
	}
	tx.scarce = true
	_, done = try()
	tx.scarce = false
	return done
}

// encode turns what was decided about slots, tokens and the time into records.
func (tx *Tx) encode() {
	tx.encodeSlots()
	if tx.tokenLimit != 0 {
		le.PutUint64(tx.records.Add(TypeTokens, 8), uint64(tx.tokenLimit))
	}
	if tx.dated {
		tx.moment.Put(tx.records.Add(TypeMoment, MomentSize))
	}
}

// noSteps are the steps of a batch that changes no values. Unlike nil, they are not derived from
// the records.
var noSteps = []kvlog.Step{}

// append makes the batch durable and applies it. After wal.ErrFull nothing of it was
// done. After a *Late the batch is in the log, its calls were answered, and settle has to
// follow. After any other error writes are stopped.
func (w *Writer) append() error {
	tx := w.tx
	w.o.Mirror.Begin(w.o.Log.Frame(&tx.records))
	w.pulse.appending(true)
	began := time.Now()
	end, err := w.o.Log.Append(&tx.records)
	if err == nil {
		err = w.o.Mirror.End(end)
	} else {
		w.o.Mirror.Cancel()
	}
	if late := lateness(err); late != nil {
		w.late = &lateBatch{end: end, began: began, calls: len(tx.answers)}
		w.answerLate(late)
		return err
	}
	w.pulse.appending(false)
	if errors.Is(err, wal.ErrFull) {
		return err
	}
	if err != nil {
		w.Fail(err)
		return err
	}
	return w.apply(end, began, len(tx.answers))
}

// apply applies the batch, which is durable and ends at end. calls is how many calls it answers.
func (w *Writer) apply(end wal.Pos, began time.Time, calls int) error {
	tx, state := w.tx, w.o.State
	took := time.Since(began)
	steps := tx.steps
	if len(steps) == 0 {
		steps = noSteps
	}
	if step := state.Moment.Stepped(tx.moment); tx.dated && step != 0 {
		w.o.Logger.Warn("the wall clock was set; this does not change when locks and values expire", "forward", step.Round(time.Millisecond))
	}
	w.changes.Add(1)
	if err := state.Apply(tx.records.At(end), steps); err != nil {
		w.changes.Add(1)
		w.Fail(err) // the log has the batch: the next start applies it
		return err
	}
	if w.o.Ends != nil {
		w.o.Ends.applied(tx.entries)
	}
	if w.o.Publish != nil && len(tx.touched) > 0 {
		w.o.Publish(tx.moment, tx.touched)
	}
	w.changes.Add(1)
	state.Version = tx.version
	if tx.tokenLimit != 0 {
		w.o.Tokens.limit.Store(tx.tokenLimit)
	}
	w.mu.Lock()
	w.position = Position{Log: end, Tokens: state.Tokens, Version: state.Version, Moment: state.Moment}
	w.mu.Unlock()
	// A moment that stands alone is a durability mark.
	w.quiet = tx.dated && tx.records.Records() == 1
	w.appended = began.Add(took)
	w.commits.Add(1)
	if w.o.Batch != nil {
		w.o.Batch(Batch{Calls: calls, Bytes: tx.records.Len(), Sync: took})
	}
	w.o.Maintain()
	return nil
}
