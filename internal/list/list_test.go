package list

import (
	"slices"
	"testing"
)

type thing struct {
	n  int
	in Item[thing]
}

func TestRemovalsAreUndoneInReverse(t *testing.T) {
	var l List[thing]
	all := func() (found []int) {
		for x := l.First(); x != nil; x = x.in.Next() {
			found = append(found, x.n)
		}
		return found
	}
	var things []*thing
	for n := range 5 {
		x := &thing{n: n}
		x.in = l.End(x)
		l.PutBack(&x.in)
		things = append(things, x)
	}
	want := []int{0, 1, 2, 3, 4}
	if got := all(); !slices.Equal(got, want) || l.Len() != 5 || l.Last() != things[4] {
		t.Fatalf("the list is %v, want %v", got, want)
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
		for _, n := range order {
			l.Remove(&things[n].in)
		}
		if l.First() != nil || l.Last() != nil || l.Len() != 0 {
			t.Errorf("removed in the order %v it holds %v", order, all())
		}
		slices.Reverse(order)
		for _, n := range order {
			l.PutBack(&things[n].in)
		}
		if got := all(); !slices.Equal(got, want) || l.Len() != 5 || l.Last() != things[4] {
			t.Errorf("put back in the order %v it is %v, want %v", order, got, want)
		}
	}
}
