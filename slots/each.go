package slots

// Each calls fn for each key of a kind. An error of fn ends it and is returned. The
// payload aliases the mapping. Only recovery calls it, after Load and Rewrite.
func (t *Tables) Each(kind uint8, fn func(k Key, payload []byte) error) error {
	return t.EachRef(kind, func(_ Ref, k Key, payload []byte) error { return fn(k, payload) })
}

// EachRef is Each for a caller that also needs the slot.
func (t *Tables) EachRef(kind uint8, fn func(r Ref, k Key, payload []byte) error) error {
	for class, tab := range t.tables {
		for n := uint64(0); n < tab.used; n++ {
			image := tab.slot(n)
			if image[4]&^hasSub != kind {
				continue
			}
			r := MakeRef(class, n)
			s, err := t.Decode(r, image)
			if err != nil {
				return err
			}
			if err := fn(r, s.Key(), s.Payload); err != nil {
				return err
			}
		}
	}
	return nil
}

// keysAtOnce is how many slots AppendKeys looks at.
const keysAtOnce = 1024

// AppendKeys appends to dst the keys of some slots of a class, starting with slot number
// from. next is where to continue; more is false at the end. Any goroutine may call it. A
// key that is moved to another slot meanwhile may be missed.
func (t *Tables) AppendKeys(dst []Key, class int, from uint64) (_ []Key, next uint64, more bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	tab := t.tables[class]
	end := min(from+keysAtOnce, tab.used)
	for n := from; n < end; n++ {
		if image := tab.slot(n); image[4] != freeKind {
			s, _ := split(image)
			dst = append(dst, s.Key())
		}
	}
	return dst, end, end < tab.used
}

// Scan calls fn for each slot of a kind whose payloads have size bytes. The slot aliases the
// mapping and is valid during the call, which must be short: applying waits for it. Any
// goroutine may call Scan. If a batch is applied meanwhile, fn may see a part of it.
func (t *Tables) Scan(kind uint8, size int, fn func(s *Slot)) {
	for class, bytes := range Classes {
		for from, more := uint64(0), bytes >= size; more; {
			from, more = t.scan(kind, class, from, fn)
		}
	}
}

// scan is Scan for some slots of a class.
func (t *Tables) scan(kind uint8, class int, from uint64, fn func(s *Slot)) (next uint64, more bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	tab := t.tables[class]
	end := min(from+keysAtOnce, tab.used)
	for n := from; n < end; n++ {
		if image := tab.slot(n); image[4]&^hasSub == kind {
			s, _ := split(image)
			fn(&s)
		}
	}
	return end, end < tab.used
}
