package lease

// due is something that happens at an instant: the end of a hold or of its rest, or the end of a wait. With neither
// holder nor waiter, claims of the lock may be granted then.
type due struct {
	at     int64
	lock   *lock
	holder *holder
	waiter *Waiter
}

// before orders by time. At the same instant waits end last, so that a waiter still gets a lock that becomes free at
// its deadline.
func (d due) before(e due) bool {
	return d.at < e.at || d.at == e.at && d.waiter == nil && e.waiter != nil
}

// schedule is a binary heap, earliest first. Each entry knows its place, so it can be moved or removed without a
// search.
type schedule []due

// any reports whether something is due at now.
func (s schedule) any(now int64) bool { return len(s) > 0 && s[0].at <= now }

func (s schedule) put(i int, d due) {
	s[i] = d
	switch {
	case d.holder != nil:
		d.holder.place = i
	case d.waiter != nil:
		d.waiter.place = i
	default:
		d.lock.place = i
	}
}

func (s *schedule) add(d due) {
	*s = append(*s, d)
	s.sift(len(*s)-1, d)
}

// move changes the instant of the entry at place i.
func (s schedule) move(i int, at int64) {
	d := s[i]
	d.at = at
	s.sift(i, d)
}

func (s *schedule) remove(i int) {
	end := len(*s) - 1
	last := (*s)[end]
	(*s)[end] = due{}
	*s = (*s)[:end]
	if i < end {
		s.sift(i, last)
	}
}

// sift puts d where it belongs, given that place i is to be filled and the rest is in order.
func (s schedule) sift(i int, d due) {
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
