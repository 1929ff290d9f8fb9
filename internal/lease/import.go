package lease

// Import adds a holder that another table has granted, with its token. It returns false
// and does nothing if the lock has a holder with that token. Unlike Restore it can be undone.
func (t *Table) Import(k Key, h Holder) bool {
	t.restored()
	l := t.locks[k]
	if l == nil {
		l = t.addLock(k)
	} else if l.byToken(h.Token) != nil {
		return false
	}
	x := t.holdersSpare.get()
	x.Holder, x.callers = h, 1
	x.in = l.holders.End(x)
	for o := l.holders.Last(); o != nil && o.Token > h.Token; o = o.in.Prev() {
		x.in = l.holders.Before(&o.in, x)
	}
	t.placeHolder(l, x)
	return true
}
