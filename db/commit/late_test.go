package commit_test

import (
	"errors"
	"testing"

	"clouddragon/db/commit"
	"clouddragon/kvlog/wal"
)

// lateMirror is a Mirror that is late for one batch and accepts it when the test says so.
type lateMirror struct {
	late  chan struct{} // has an element if the next batch is to be late
	taken chan error    // what the wait for the late batch returns
	again bool
}

func newLateMirror() *lateMirror {
	return &lateMirror{late: make(chan struct{}, 1), taken: make(chan error)}
}

var errAway = errors.New("the mirror is away")

func (*lateMirror) Begin(wal.Frame) {}
func (*lateMirror) Cancel()         {}
func (m *lateMirror) End(wal.Pos) error {
	if m.again {
		m.again = false
		return <-m.taken
	}
	select {
	case <-m.late:
		m.again = true
		return &commit.Late{Why: errAway}
	default:
		return nil
	}
}

// internal is an operation that no client waits for.
type internal struct{ commit.Op }

func newLateRig(t *testing.T) (*rig, *lateMirror) {
	m := newLateMirror()
	return newRig(t, 1<<20, commit.Options{Mirror: m, OfClient: func(op commit.Op) bool {
		_, of := op.(internal)
		return !of
	}}), m
}

// A caller that commits its own batch gets its answer too. The writer goes on once the
// mirror has the batch.
func TestCallOfALateBatchIsToldThatItsOutcomeIsUnknown(t *testing.T) {
	r, m := newLateRig(t)
	m.late <- struct{}{}
	ended := make(chan error, 1)
	go func() { ended <- r.Do(add("a", 1)) }()
	err := soon(t, "the answer", ended)
	if !errors.Is(err, commit.ErrUnknown) || !errors.Is(err, commit.ErrUnanswered) {
		t.Fatalf("a write of a late batch ends with %v, want %v", err, commit.ErrUnanswered)
	}
	if n, ok := r.number("a"); ok {
		t.Errorf("the late batch is applied: %d", n)
	}
	next, done := call(add("a", 1))
	if err := r.Queue(next); err != nil {
		t.Fatal(err)
	}
	m.taken <- nil
	soon(t, "the next write", done)
	if n, _ := r.number("a"); next.Err != nil || n != 2 {
		t.Errorf("the next write ends with %v and %d, want 2", next.Err, n)
	}
	r.close(t)
}

// A caller may reuse a call once it is answered, so nothing else may use it then. Calls that
// wait in a Part are answered too.
func TestPartsForgetTheCallsOfALateBatchBeforeTheyAreAnswered(t *testing.T) {
	r, m := newLateRig(t)
	done := make(chan struct{})
	c := &commit.Call{Op: add("a", 1), Done: func(*commit.Call) { // the writer calls it
		if n := len(r.alarm.marks); n > 0 {
			t.Errorf("a call is answered while a Part can still undo %d steps", n)
		}
		if !errors.Is(r.alarm.drained, errAway) {
			t.Errorf("calls that wait in a Part end with %v, want %v", r.alarm.drained, errAway)
		}
		close(done)
	}}
	m.late <- struct{}{}
	if err := r.Queue(c); err != nil {
		t.Fatal(err)
	}
	soon(t, "the answer", done)
	m.taken <- nil
	r.close(t)
}

// Internal calls, such as one for a block of tokens, need to know the outcome, so they wait.
func TestInternalCallOfALateBatchWaits(t *testing.T) {
	for _, end := range []error{nil, errAway} {
		r, m := newLateRig(t)
		c, done := call(internal{add("a", 1)})
		of, ofDone := call(add("b", 1))
		m.late <- struct{}{}
		if err := r.Queue(c, of); err != nil {
			t.Fatal(err)
		}
		soon(t, "the client's answer", ofDone)
		select {
		case <-done:
			t.Errorf("the internal call is answered with %v before the mirror has its batch", c.Err)
		default:
		}
		m.taken <- end
		soon(t, "the internal call's answer", done)
		if end == nil && c.Err != nil || end != nil && !errors.Is(c.Err, commit.ErrUnknown) {
			t.Errorf("the mirror ends with %v, the internal call with %v", end, c.Err)
		}
		if end == nil {
			r.close(t)
			continue
		}
		if err := r.Do(add("a", 1)); !errors.Is(err, commit.ErrStopped) {
			t.Errorf("a write after the mirror has failed: %v, want %v", err, commit.ErrStopped)
		}
		r.Writer.Close()
	}
}

// A server that stops does not hang on a late batch.
func TestWriterEndsWithALateBatch(t *testing.T) {
	r, m := newLateRig(t)
	wantDone(t, "a write", r.Do(add("a", 1)))
	m.late <- struct{}{}
	c, done := call(add("a", 1))
	if err := r.Queue(c); err != nil {
		t.Fatal(err)
	}
	soon(t, "the answer", done)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		r.Writer.Close()
	}()
	m.taken <- nil
	soon(t, "the end of the writer", closed)
	if n, _ := r.number("a"); n != 2 {
		t.Errorf("a is %d, want 2", n)
	}
}
