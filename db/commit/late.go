package commit

import (
	"errors"
	"time"

	"clouddragon/kvlog/wal"
)

// A batch that the mirror does not take in time is late. It is in the log and cannot be taken
// back, and the mirror may have it or not, so the calls of clients are told that their
// outcome is unknown. The writer waits on: it applies the batch once the mirror has it,
// and decides nothing before that.

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

// lateBatch is what is left to do for a batch.
type lateBatch struct {
	end   wal.Pos
	began time.Time
	calls int // that it would have answered
}

// answerLate answers the calls of a late batch, and those that wait in a queue: while the
// writer waits, nobody would end their wait.
func (w *Writer) answerLate(l *Late) {
	tx := w.tx
	ofBatch := len(tx.answers)
	for _, p := range w.o.Parts {
		p.Drain(tx, l.Why)
	}
	// The batch is in the log, so nothing of it is undone. The Parts forget the calls
	// before these are their callers' again, which may reuse them.
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

// settle waits until the mirror has the batch that is late, if one is, and applies it.
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
