package commit

import "clouddragon/slots"

// endsPerBatch bounds how many things end in one batch, so that the calls of that
// batch need not wait for a million of them.
const endsPerBatch = 1000

// Ends removes expired things from slots. It is a Part that knows when each thing ends. A kind
// takes part with a function that reads the end from a payload; see NewEnds. An expired thing
// stays in its slot until it is removed, so readers have to compare its end with the time.
//
// Ends learns of new ends from applied batches, so it only ever has to undo a removal.
type Ends struct {
	kinds  [128]EndOf
	tables *slots.Tables
	room   func() int // bytes that a batch may take, without the reserve

	due     Due[slots.Ref]
	removed []end // in the current batch, for undo
	count   int   // how many that batch has removed
}

// EndOf returns the end that a payload holds, in database time; 0: none.
type EndOf func(payload []byte) int64

// NewEnds returns the Ends of some kinds, 1 to 127, with the ends of all things of these kinds
// in the tables.
func NewEnds(t *slots.Tables, kinds map[uint8]EndOf) (*Ends, error) {
	e := &Ends{tables: t}
	for kind, end := range kinds {
		e.kinds[kind] = end
		err := t.EachRef(kind, func(r slots.Ref, _ slots.Key, payload []byte) error {
			if at := end(payload); at != 0 {
				e.due.Set(r, at)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// applied takes over the ends that a durable batch has changed.
func (e *Ends) applied(entries []Entry) {
	for i := range entries {
		if en := &entries[i]; en.dirty && en.had && e.kinds[en.key.Kind] != nil {
			e.due.Drop(en.old)
		}
	}
	for i := range entries {
		en := &entries[i]
		if !en.dirty || !en.live || e.kinds[en.key.Kind] == nil {
			continue
		}
		if at := e.kinds[en.key.Kind](en.payload); at != 0 {
			e.due.Set(en.ref, at)
		}
	}
}

// Next returns the first end, or none if this batch has removed enough.
func (e *Ends) Next() (at int64, ok bool) {
	if e.count >= endsPerBatch {
		return 0, false
	}
	_, at, ok = e.due.First()
	return at, ok
}

// Expire removes the thing that ends first. On a full disk it leaves the reserve to deletes:
// readers no longer see an expired thing anyway.
func (e *Ends) Expire(tx *Tx) error {
	if tx.bytes()+SlotChange > e.room() {
		return &NoRoom{Class: LogRoom}
	}
	ref, at, _ := e.due.First()
	e.take(end{at, ref})
	k := e.tables.KeyAt(ref)
	en := tx.Entry(k, k.Hash())
	if at := e.kinds[k.Kind](en.Payload()); !en.Live() || at == 0 || at > tx.Now() {
		return nil // another Part has changed it in this batch
	}
	tx.Remove(en)
	tx.Date()
	return nil
}

// take removes an end that is being decided from the heap.
func (e *Ends) take(first end) {
	e.due.Drop(first.ref)
	e.removed = append(e.removed, first)
	e.count++
}

// Mark returns a savepoint of the removals.
func (e *Ends) Mark(*Tx) int { return len(e.removed) }

// Undo takes back the removals since a mark.
func (e *Ends) Undo(mark int) {
	for _, end := range e.removed[mark:] {
		e.due.Set(end.ref, end.at)
	}
	e.count -= len(e.removed) - mark
	e.removed = e.removed[:mark]
}

// Forget makes the removals so far final.
func (e *Ends) Forget() { e.removed = e.removed[:0] }

// Committed lets the next batch remove more.
func (e *Ends) Committed() { e.count = 0 }

// TimeOut and Drain have nothing to do: no call waits for an end.
func (e *Ends) TimeOut(*Tx) {}

// Drain does nothing; see TimeOut.
func (e *Ends) Drain(*Tx, error) {}

// end is when the thing in a slot ends.
type end struct {
	at  int64
	ref slots.Ref
}
