// Package list is a doubly linked list whose changes can be undone.
package list

// List holds Ts, each of which embeds an Item. An item that is removed keeps its links,
// so PutBack returns it to where it was, provided that all later changes of the list
// have been undone.
type List[T any] struct {
	first, last *Item[T]
	n           int
}

// Item is the place of a T in a list.
type Item[T any] struct {
	of         *T
	prev, next *Item[T]
}

// Len returns how many there are.
func (s *List[T]) Len() int { return s.n }

// First returns the first of the list, or nil.
func (s *List[T]) First() *T { return s.first.value() }

// Last returns the last of the list, or nil.
func (s *List[T]) Last() *T { return s.last.value() }

// Next returns what follows in the list, or nil.
func (i *Item[T]) Next() *T { return i.next.value() }

// Prev returns what comes before in the list, or nil.
func (i *Item[T]) Prev() *T { return i.prev.value() }

func (i *Item[T]) value() *T {
	if i == nil {
		return nil
	}
	return i.of
}

// End returns an item for of that PutBack puts at the end of the list.
func (s *List[T]) End(of *T) Item[T] { return Item[T]{of: of, prev: s.last} }

// Before returns an item for of that PutBack puts before another one.
func (s *List[T]) Before(i *Item[T], of *T) Item[T] { return Item[T]{of: of, prev: i.prev, next: i} }

// PutBack puts an item between its neighbours.
func (s *List[T]) PutBack(i *Item[T]) {
	if i.prev == nil {
		s.first = i
	} else {
		i.prev.next = i
	}
	if i.next == nil {
		s.last = i
	} else {
		i.next.prev = i
	}
	s.n++
}

// Remove takes an item out of the list.
func (s *List[T]) Remove(i *Item[T]) {
	if i.prev == nil {
		s.first = i.next
	} else {
		i.prev.next = i.next
	}
	if i.next == nil {
		s.last = i.prev
	} else {
		i.next.prev = i.prev
	}
	s.n--
}
