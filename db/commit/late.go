package commit

import (
	"errors"
	"time"

	"clouddragon/kvlog/wal"
)

// A batch that the mirror does not take in time is late. It is in the log and cannot be
// undone, and nobody knows whether the mirror has it. So the calls of clients are answered
// that their outcome is unknown. The writer keeps waiting: it applies the batch once the
// mirror has it, and decides nothing until then.

// Late is the error of a Mirror that has not answered in time.
type Late struct {
	Why error // the answer to calls that wait for something else, and of which nothing was done
}

func (l *Late) Error() string { return "the mirror is late: " + l.Why.Error() }
func (l *Late) Unwrap() error { return l.Why }

// lateness returns the *Late that err is or wraps, or nil.
func lateness(err error) *Late {
	if err == nil {
		return nil // it allocates nothing
	}
	l := (*Late)(nil)
	errors.As(err, &l)
	return l
}

// ErrUnanswered is the ErrUnknown of a call whose batch is late. Writes go on once the
// mirror has it.
var ErrUnanswered error = unanswered{}

type unanswered struct{}

func (unanswered) Error() string {
	return "the standby has not answered during this write: its outcome is unknown"
}

// Is makes it an ErrUnknown.
func (unanswered) Is(target error) bool { return target == ErrUnknown }

// lateBatch is a batch that has yet to be applied.
type lateBatch struct {
	end   wal.Pos
	began time.Time
	calls int // how many calls it would have answered
}

// answerLate answers the calls of a late batch. It also answers the calls that wait in the
// queue of a Part, because their waits cannot time out while the writer waits.
func (w *Writer) answerLate(l *Late) {
	tx := w.tx
	ofBatch := len(tx.answers)
	for _, p := range w.o.Parts {
		p.Drain(tx, l.Why)
	}
	// The batch is in the log, so nothing of it is undone. The Parts have to forget the calls
	// before they are answered, because callers may then reuse them.
	tx.forget()
	clear(w.decided)
	w.decided = w.decided[:0]
	kept := tx.answers[:0]
	for i, a := range tx.answers {
		switch {
		case i >= ofBatch:
		case w.o.OfClient != nil && w.o.OfClient(a.call.Op):
			a.err = ErrUnanswered
		default:
			kept = append(kept, a)
			continue
		}
		a.call.Err = a.err
		a.call.Done(a.call)
	}
	clear(tx.answers[len(kept):])
	tx.answers = kept
}

// settle waits until the mirror has the late batch, if there is one, and applies it.
func (w *Writer) settle() {
	b := w.late
	if b == nil {
		return
	}
	w.late = nil
	err := w.o.Mirror.End(b.end)
	w.pulse.appending(false)
	if err == nil {
		err = w.apply(b.end, b.began, b.calls)
	} else {
		w.Fail(err)
	}
	if err != nil {
		w.answersUnknown()
	}
	w.finish()
}
