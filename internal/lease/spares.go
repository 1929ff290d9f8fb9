package lease

// spares keeps freed Ts for reuse, so that short-lived ones allocate nothing.
type spares[T any] []*T

// maxSpares keeps a burst from holding memory forever.
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
