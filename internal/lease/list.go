package lease

// list is a doubly linked list of Ts, each of which embeds an item. An item that is removed keeps its links, so
// putBack returns it to where it was, provided that all later changes of the list have been undone.
type list[T any] struct {
	first, last *item[T]
	n           int
}

type item[T any] struct {
	of         *T
	prev, next *item[T]
}

// head returns the first of the list, or nil.
func (s *list[T]) head() *T {
	if s.first == nil {
		return nil
	}
	return s.first.of
}

// after returns what follows in the list, or nil.
func (i *item[T]) after() *T {
	if i.next == nil {
		return nil
	}
	return i.next.of
}

func (s *list[T]) append(i *item[T], of *T) {
	i.of, i.prev, i.next = of, s.last, nil
	s.putBack(i)
}

func (s *list[T]) putBack(i *item[T]) {
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

func (s *list[T]) remove(i *item[T]) {
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

// spares keeps memory for the next Ts, so that one that comes and goes allocates nothing.
type spares[T any] []*T

// A burst is not kept forever.
const maxSpares = 256

func (s *spares[T]) get() *T {
	if n := len(*s); n > 0 {
		x := (*s)[n-1]
		*s = (*s)[:n-1]
		return x
	}
	return new(T)
}

func (s *spares[T]) put(x *T) {
	var zero T
	*x = zero
	if len(*s) < maxSpares {
		*s = append(*s, x)
	}
}
