package commit

import (
	"errors"

	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Mirror is a second place that has to have each batch before its calls are answered: the log
// of a standby. For each batch the leader calls Begin, then either End or Cancel.
type Mirror interface {
	// Begin is called before the log writes a batch. The mirror can have it at the same
	// time. The frame is valid until End or Cancel.
	Begin(f wal.Frame)
	// End returns once the mirror has the batch, or if the mirror is not needed. The batch is
	// in the log, which now ends at end. After a *Late, which means that the mirror has not
	// answered in time, End is called again and waits for as long as it takes. After any other
	// error writes are stopped: the batch's outcome is unknown, and it is not applied.
	End(end wal.Pos) error
	// Cancel is called instead of End if the batch could not be written to the log.
	Cancel()
}

// noMirror is used if Options has no Mirror.
type noMirror struct{}

func (noMirror) Begin(wal.Frame)   {}
func (noMirror) End(wal.Pos) error { return nil }
func (noMirror) Cancel()           {}

// Refuse answers queued calls with an error, if may returns true for their operations. None of
// them is done.
func (w *Writer) Refuse(err error, may func(Op) bool) {
	for _, c := range w.queue.remove(may) {
		c.Err = err
		c.Done(c)
	}
}

// Follower replays another server's log in a data directory. It appends the batches that the
// other server's writer has decided, and applies each once the other server has answered its
// calls. A batch that was appended but not applied may still have to be cut off, because the
// other server can have failed before the batch was on its own disk.
//
// The Writer of a Follower is not started and gets no calls. One goroutine at a time
// may use a Follower.
type Follower struct {
	w       *Writer
	name    func(kind uint8, acc, id string)
	batches [2]wal.Batch // the next one, and the last one that was appended
	waiting wal.Records  // of the batch that is not applied yet; empty: none
	from    wal.Pos      // where the last appended batch begins
	end     wal.Pos      // of the log
}

// NewFollower returns a Follower that appends to the log of w. name is called with everything
// that a batch stores, before the batch is applied. The kind of a value is 0.
func NewFollower(w *Writer, name func(kind uint8, acc, id string)) *Follower {
	return &Follower{w: w, name: name, end: w.Position().Log}
}

// End returns where the log ends. A batch after the writer's Position is not applied yet.
func (f *Follower) End() wal.Pos { return f.end }

// Append applies the batch before, makes a batch durable, and returns the end of the log. If
// the batch was appended already, Append does nothing: a server that got no answer sends its
// last batch again. If the log does not end where the batch begins, the error is
// wal.ErrNoPosition. Then, and if there is no room, nothing was appended.
func (f *Follower) Append(frame wal.Frame) (wal.Pos, error) {
	w := f.w
	if err := w.Err(); err != nil {
		return wal.Pos{}, err
	}
	if frame.From == f.from && f.batches[1].Holds(frame) {
		return f.end, nil
	}
	if frame.From != f.end {
		return wal.Pos{}, wal.ErrNoPosition
	}
	if err := f.apply(); err != nil {
		return wal.Pos{}, err
	}
	if err := f.growFor(frame); err != nil {
		return wal.Pos{}, err
	}
	b := &f.batches[0]
	end, err := w.o.Log.AppendFrame(b, frame)
	if errors.Is(err, wal.ErrFailed) {
		w.Fail(err)
	}
	if err != nil {
		f.end = w.o.Log.Durable() // it can have gone on in the next segment
		return wal.Pos{}, err
	}
	f.batches[0], f.batches[1] = f.batches[1], f.batches[0]
	f.waiting, f.from, f.end = f.batches[1].At(end), frame.From, end
	return end, nil
}

// Settle applies the last batch if it ends at answered or before, so its calls were answered.
func (f *Follower) Settle(answered wal.Pos) error {
	if err := f.w.Err(); err != nil {
		return err
	}
	if answered.Seq < f.end.Seq {
		return nil
	}
	return f.apply()
}

// growFor grows the tables until they have every slot that the batch stores to.
func (f *Follower) growFor(frame wal.Frame) error {
	tables := f.w.o.State.Tables
	for rec := range frame.All() {
		if rec.Type != TypeSlot || len(rec.Body) < 8 {
			continue
		}
		ref := slots.Ref(le.Uint64(rec.Body))
		for !tables.Has(ref) {
			if err := tables.Grow(ref.Class()); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply applies the waiting batch, if there is one.
func (f *Follower) apply() error {
	w, state := f.w, f.w.o.State
	if f.waiting.Len() == 0 {
		return nil
	}
	for rec := range f.waiting.All() {
		switch rec.Type {
		case kvlog.TypeValue:
			acc, id := kvlog.NameOf(rec.Body)
			f.name(0, acc, id)
		case TypeSlot:
			if len(rec.Body) <= 8 {
				continue
			}
			slot, err := state.Tables.Decode(slots.Ref(le.Uint64(rec.Body)), rec.Body[8:])
			if err != nil {
				return f.fail(err)
			}
			if !slot.Free {
				k := slot.Key()
				f.name(k.Kind, k.Acc, k.ID)
			}
		}
	}
	w.changes.Add(1)
	err := state.Apply(f.waiting, nil)
	w.changes.Add(1)
	if err != nil {
		return f.fail(err)
	}
	f.waiting = wal.Records{}
	w.mu.Lock()
	w.position = Position{Log: f.end, Tokens: state.Tokens, Version: state.Version, Moment: state.Moment}
	w.mu.Unlock()
	w.commits.Add(1)
	w.o.Maintain()
	return nil
}

// fail stops the follower for good: the log has a batch that cannot be applied.
func (f *Follower) fail(err error) error {
	f.w.Fail(err)
	return err
}
