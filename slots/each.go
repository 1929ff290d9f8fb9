package slots

// Each calls fn for each key of a kind, until fn returns an error, which it
// returns. The payload aliases the mapping. Only recovery calls it, after Load
// and Rewrite.
func (t *Tables) Each(kind uint8, fn func(k Key, payload []byte) error) error {
	return t.EachRef(kind, func(_ Ref, k Key, payload []byte) error { return fn(k, payload) })
}

// EachRef is Each for a caller that also wants to know the slot.
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
