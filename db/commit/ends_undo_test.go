package commit

import (
	"testing"

	"clouddragon/slots"
)

// A removal that finds no room is undone and tried again.
func TestUndoneRemovalsAreStillDue(t *testing.T) {
	e := &Ends{}
	for ref, at := range []int64{30, 10, 20} {
		e.due.Set(slots.Ref(ref), at)
	}
	remove := func() {
		ref, at, _ := e.due.First()
		e.take(end{at, ref})
	}
	want := func(what string, at int64, left int) {
		t.Helper()
		if got, ok := e.Next(); !ok || got != at || e.due.Len() != left {
			t.Errorf("%s: next is %d, %t of %d; want %d of %d", what, got, ok, e.due.Len(), at, left)
		}
	}
	mark := e.Mark(nil)
	remove()
	remove()
	want("two removed", 30, 1)
	e.Undo(mark)
	want("undone", 10, 3)
	remove()
	e.Forget()
	e.Undo(e.Mark(nil))
	want("one removed for good", 20, 2)
}
