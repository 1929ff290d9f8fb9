package lockq

// due is the end of a hold (waiter is nil) or of a wait.
type due struct {
	at     int64
	lock   *lock
	waiter *Waiter
}

// before orders by time; at the same instant the hold ends first, so that a waiter still gets what comes free at
// its deadline.
func (d due) before(e due) bool {
	return d.at < e.at || d.at == e.at && d.waiter == nil && e.waiter != nil
}

// schedule is a binary heap, the earliest first. Whatever is in it knows its place, to be moved or removed without a search.
type schedule []due

func (s schedule) put(i int, d due) {
	s[i] = d
	if d.waiter != nil {
		d.waiter.place = i
	} else {
		d.lock.place = i
	}
}

func (s *schedule) add(d due) {
	*s = append(*s, d)
	s.settle(len(*s)-1, d)
}

// move gives the entry at place i another instant.
func (s schedule) move(i int, at int64) {
	d := s[i]
	d.at = at
	s.settle(i, d)
}

func (s *schedule) remove(i int) {
	end := len(*s) - 1
	last := (*s)[end]
	(*s)[end] = due{}
	*s = (*s)[:end]
	if i < end {
		s.settle(i, last)
	}
}

// settle puts d where it belongs, given that place i is to be filled and the rest is in order.
func (s schedule) settle(i int, d due) {
	for i > 0 && d.before(s[(i-1)/2]) {
		s.put(i, s[(i-1)/2])
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child+1 < len(s) && s[child+1].before(s[child]) {
			child++
		}
		if child >= len(s) || !s[child].before(d) {
			break
		}
		s.put(i, s[child])
		i = child
	}
	s.put(i, d)
}

// waits appends the waiters at or below place i that are due at now.
func (s schedule) waits(all []*Waiter, i int, now int64) []*Waiter {
	if i >= len(s) || s[i].at > now {
		return all
	}
	if s[i].waiter != nil {
		all = append(all, s[i].waiter)
	}
	return s.waits(s.waits(all, 2*i+1, now), 2*i+2, now)
}
