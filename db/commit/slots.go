package commit

import "clouddragon/slots"

// Entry is a thing that lives in a slot, as the transaction sees it: what the tables hold,
// and what the transaction has decided about it.
type Entry struct {
	key   slots.Key
	hash  uint64
	next  int32 // the entry before it with the same hash, plus one
	index int32
	had   bool      // it is in the tables, at old
	old   slots.Ref // its slot in the tables
	entryState
}

// entryState is the part of an Entry that a transaction changes.
type entryState struct {
	placed  bool // it has a slot, ref
	live    bool // it exists
	dirty   bool // this transaction changed it
	taken   bool // another thing has taken over its slot in the tables
	ref     slots.Ref
	from    int32 // the entry from whose slot in the tables it took over, plus one; 0: none
	payload []byte
}

type entryUndo struct {
	index int32
	entryState
}

// Live reports whether the thing exists.
func (e *Entry) Live() bool { return e.live }

// Payload returns what the thing's slot holds; empty if it does not exist. It is valid until
// the batch ends, and must not be changed.
func (e *Entry) Payload() []byte { return e.payload }

// Entry returns a thing as this transaction sees it. hash is the key's. The pointer is valid
// until the next call.
func (tx *Tx) Entry(k slots.Key, hash uint64) *Entry {
	head := tx.byHash[hash]
	for i := head; i != 0; i = tx.entries[i-1].next {
		if e := &tx.entries[i-1]; e.key == k {
			return e
		}
	}
	tx.entries = append(tx.entries, Entry{key: k, hash: hash, next: head, index: int32(len(tx.entries))})
	tx.byHash[hash] = int32(len(tx.entries))
	e := &tx.entries[len(tx.entries)-1]
	if ref, payload, ok := tx.tables.Lookup(k, hash); ok {
		e.had, e.placed, e.live, e.old, e.ref, e.payload = true, true, true, ref, ref, payload
	}
	return e
}

// change saves the state of e for undo before it changes.
func (tx *Tx) change(e *Entry) {
	tx.entryUndo = append(tx.entryUndo, entryUndo{e.index, e.entryState})
}

// Put gives a thing a new payload. The caller must not change the payload before the end of
// the batch. The error is a *NoRoom, and nothing changed, where no slot of its size is free.
func (tx *Tx) Put(e *Entry, payload []byte) error { return tx.put(e, payload, false) }

// PutEnd is Put of a payload that differs in the thing's end alone.
func (tx *Tx) PutEnd(e *Entry, payload []byte) error { return tx.put(e, payload, true) }

func (tx *Tx) put(e *Entry, payload []byte, endOnly bool) error {
	class := classFor(e.key, payload)
	if !e.placed || e.ref.Class() != class {
		ref, ok := tx.tables.Alloc(class)
		if !ok {
			return &NoRoom{Class: class, Capacity: tx.tables.Capacity(class)}
		}
		tx.given = append(tx.given, ref)
		tx.change(e)
		tx.leaveSlot(e)
		e.ref, e.placed = ref, true
		tx.size += slotRecordSize(ref)
		if e.had {
			tx.size += slotRecordSize(e.old)
		}
	} else {
		tx.change(e)
		if !e.dirty {
			tx.size += slotRecordSize(e.ref)
		}
	}
	tx.store(e, payload, endOnly)
	return nil
}

func (tx *Tx) store(e *Entry, payload []byte, endOnly bool) {
	tx.touch(Touched{
		Kind: e.key.Kind, Acc: e.key.Acc, ID: e.key.ID, Sub: e.key.Sub, Payload: payload, Created: !e.live, EndOnly: endOnly,
	})
	e.payload, e.live, e.dirty = payload, true, true
}

// leaveSlot frees the slot that e got in this transaction, if any.
func (tx *Tx) leaveSlot(e *Entry) {
	switch {
	case e.from != 0:
		owner := &tx.entries[e.from-1]
		tx.change(owner)
		owner.taken = false
		e.from = 0
	case e.placed && (!e.had || e.ref != e.old):
		tx.released = append(tx.released, e.ref)
	}
}

// Remove deletes a thing.
func (tx *Tx) Remove(e *Entry) {
	tx.change(e)
	if !e.dirty && e.had {
		tx.size += slotRecordSize(e.old)
	}
	tx.leaveSlot(e)
	e.live, e.dirty = false, true
	e.ref, e.placed = e.old, e.had
	e.payload = nil
	tx.touch(Touched{Kind: e.key.Kind, Acc: e.key.Acc, ID: e.key.ID, Sub: e.key.Sub, Gone: true})
}

// Replace removes the thing from and puts a new thing into its slot, so that no free slot
// is needed. It panics if the slot is not of the size class of the new payload.
func (tx *Tx) Replace(from slots.Key, fromHash uint64, to slots.Key, toHash uint64, payload []byte) {
	old := tx.Entry(from, fromHash)
	if !old.live || !old.placed {
		panic("commit: Replace of a thing that does not exist")
	}
	ref := old.ref
	if class := classFor(to, payload); ref.Class() != class {
		panic("commit: Replace with a thing of another size")
	}
	tx.change(old)
	if !old.dirty {
		tx.size += slotRecordSize(ref)
	}
	owner := old.from
	if old.had && ref == old.old {
		old.taken = true
		owner = old.index + 1
	}
	old.live, old.dirty, old.placed, old.from, old.payload = false, true, false, 0, nil
	tx.touch(Touched{Kind: from.Kind, Acc: from.Acc, ID: from.ID, Sub: from.Sub, Gone: true, Handed: true})

	e := tx.Entry(to, toHash)
	tx.change(e)
	e.ref, e.placed, e.from = ref, true, owner
	tx.store(e, payload, false)
}

func classFor(k slots.Key, payload []byte) int {
	class, ok := slots.ClassFor(k, len(payload))
	if !ok {
		panic("commit: a payload that no slot holds")
	}
	return class
}

// encodeSlots adds the records of the slots that changed.
func (tx *Tx) encodeSlots() {
	for i := range tx.entries {
		e := &tx.entries[i]
		if !e.dirty {
			continue
		}
		if e.had && !e.taken && (!e.live || e.ref != e.old) {
			tx.tables.EncodeFree(tx.slotRecord(e.old), e.old)
		}
		if e.live {
			tx.tables.Encode(tx.slotRecord(e.ref), e.ref, e.key, e.payload)
		}
	}
}

// slotRecord adds a slot's record and returns the room for its image.
func (tx *Tx) slotRecord(r slots.Ref) []byte {
	b := tx.records.Add(TypeSlot, 8+r.Size())
	le.PutUint64(b, uint64(r))
	return b[8:]
}
