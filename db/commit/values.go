package commit

import (
	"strings"

	"clouddragon/kvlog"
	"clouddragon/slots"
)

// ValueEntry is a key that may have a value, as the transaction sees it: what the index finds,
// and what the transaction has decided about it.
type ValueEntry struct {
	key   slots.Key
	hash  uint64
	next  int32 // the entry before it with the same hash, plus one
	index int32
	valueState
}

// valueState is the part of a ValueEntry that a transaction changes.
type valueState struct {
	found kvlog.Found
	after int // the step that stored it, plus one; 0: it was there before
}

type valueUndo struct {
	index int32
	valueState
}

// Found returns the key's value, which may have expired; see Live.
func (e *ValueEntry) Found() *kvlog.Found { return &e.found }

// Live reports whether the key has a value at that database time.
func (e *ValueEntry) Live(now int64) bool {
	return e.found.OK && (e.found.Expires == 0 || e.found.Expires > now)
}

// Decided returns what the transaction knows about a key; nil if nothing. The pointer is valid
// until the next AddValue.
func (tx *Tx) Decided(k slots.Key, hash uint64) *ValueEntry {
	for i := tx.byValue[hash]; i != 0; i = tx.values[i-1].next {
		if e := &tx.values[i-1]; e.key == k {
			return e
		}
	}
	return nil
}

// AddValue tells the transaction what was found for a key that it does not know yet.
func (tx *Tx) AddValue(k slots.Key, hash uint64, found kvlog.Found) *ValueEntry {
	tx.values = append(tx.values, ValueEntry{key: k, hash: hash, next: tx.byValue[hash], index: int32(len(tx.values)), valueState: valueState{found: found}})
	tx.byValue[hash] = int32(len(tx.values))
	return &tx.values[len(tx.values)-1]
}

func (tx *Tx) changeValue(e *ValueEntry) {
	tx.valueUndo = append(tx.valueUndo, valueUndo{e.index, e.valueState})
}

// Hidden is the prefix of the ids of the server's own values. They are not published and
// not listed. Clients cannot use such ids, because theirs have no NUL.
const Hidden = "\x00"

// HiddenData is the prefix of those of the server's own values that keep something of a client.
// They are published and in the index of names, so an account in which only they are is listed.
// They are not listed themselves. Part of the file format, never changed.
const HiddenData = Hidden + "tf"

// IsPublished reports whether things with that id are published and in the index of names.
func IsPublished(id string) bool {
	return !strings.HasPrefix(id, Hidden) || strings.HasPrefix(id, HiddenData)
}

// NewValue is a value to be stored.
type NewValue struct {
	Type     string // Content-Type
	Encoding string // Content-Encoding
	Data     []byte
	Sum      uint32 // kvlog.SumValue of Data
	Expires  int64  // in database time, ns; 0: never
}

// PutValue stores a value and returns its version.
func (tx *Tx) PutValue(e *ValueEntry, v *NewValue) (version uint64) {
	live := e.Live(tx.Now())
	if e.found.OK && !live {
		tx.touchGone(e)
	}
	tx.version++
	tx.putValue(e, v, tx.version)
	tx.touch(touchedValue(e, v, tx.version, Touched{Created: !live}))
	return tx.version
}

// RetimeValue changes the end of a key's value. v is the value with its new end. The version
// stays the same.
func (tx *Tx) RetimeValue(e *ValueEntry, v *NewValue) {
	tx.putValue(e, v, e.found.Version)
	tx.touch(touchedValue(e, v, e.found.Version, Touched{EndOnly: true}))
}

// touchedValue fills in the fields that describe a value.
func touchedValue(e *ValueEntry, v *NewValue, version uint64, t Touched) Touched {
	t.Acc, t.ID, t.Version = e.key.Acc, e.key.ID, version
	t.Size, t.Type, t.Expires = len(v.Data), v.Type, v.Expires
	return t
}

func (tx *Tx) putValue(e *ValueEntry, v *NewValue, version uint64) {
	tx.changeValue(e)
	if v.Expires != 0 {
		tx.Date()
	}
	at := tx.records.Len()
	body := tx.records.AddDirty(kvlog.TypeValue, kvlog.ValueSize(e.key.Acc, e.key.ID, v.Type, v.Encoding, len(v.Data)))
	tx.index.Put(body, e.key.Acc, e.key.ID, v.Type, v.Encoding, version, v.Expires, v.Data, v.Sum)
	size := tx.records.Len() - at
	tx.steps = append(tx.steps, kvlog.Step{Hash: e.hash, At: at, Size: size, Expires: v.Expires, Old: e.found, After: e.after})
	e.found = kvlog.Found{OK: true, Version: version, Expires: v.Expires, Size: size}
	e.after = len(tx.steps)
}

// RemoveValue removes a key's value. With tombstone it writes a tombstone, so that an index
// that is rebuilt brings back neither this value nor an older one. origin is the segment
// whose older values the tombstone has to outlive, 0 for the current one.
func (tx *Tx) RemoveValue(e *ValueEntry, tombstone bool, origin uint64) {
	tx.changeValue(e)
	step := kvlog.Step{Hash: e.hash, At: -1, Old: e.found, After: e.after}
	if tombstone {
		step.Tombstone = tx.addTombstone(e.key, origin)
	}
	tx.steps = append(tx.steps, step)
	tx.touchGone(e)
	e.found, e.after = kvlog.Found{}, 0
}

// touchGone records for Options.Publish that the key's value is gone.
func (tx *Tx) touchGone(e *ValueEntry) {
	tx.touch(Touched{
		Acc: e.key.Acc, ID: e.key.ID, Gone: true, Expired: !e.Live(tx.Now()),
		Version: e.found.Version, Expires: e.found.Expires,
	})
}

// addTombstone adds the record that a key has no value, and returns the record's size.
func (tx *Tx) addTombstone(k slots.Key, origin uint64) int {
	at := tx.records.Len()
	kvlog.PutTombstone(tx.records.Add(kvlog.TypeTombstone, kvlog.TombstoneSize(k.Acc, k.ID)), k.Acc, k.ID, origin)
	return tx.records.Len() - at
}

// MoveValue appends the record of a value again, unless the key has another value by now. An
// expired value is removed instead.
func (tx *Tx) MoveValue(m *kvlog.Move) {
	key := slots.Key{Acc: m.Acc, ID: m.ID}
	e := tx.Decided(key, m.Hash)
	if e == nil {
		if !tx.index.Points(m.Hash, m.Loc) {
			return
		}
		e = tx.AddValue(key, m.Hash, kvlog.Found{OK: true, Loc: m.Loc, Version: m.Version, Expires: m.Expires, Size: m.Size})
	}
	if !e.found.OK || e.after != 0 || e.found.Loc != m.Loc {
		return
	}
	if !e.Live(tx.Now()) {
		// No segment after this one holds an older value of the key.
		tx.Date()
		tx.expired = true
		tx.RemoveValue(e, tx.index.Needed(m.From, m.From), m.From)
		tx.expired = false
		return
	}
	tx.changeValue(e)
	at := tx.records.Len()
	tx.records.AddBytes(kvlog.TypeValue, m.Body)
	tx.steps = append(tx.steps, kvlog.Step{Hash: m.Hash, At: at, Size: m.Size, Expires: m.Expires, Old: e.found})
	e.after = len(tx.steps)
}

// MoveTombstone appends a tombstone again, unless its key has a value. That value's record has
// the same effect on an index that is rebuilt.
func (tx *Tx) MoveTombstone(m *kvlog.Move) error {
	key := slots.Key{Acc: m.Acc, ID: m.ID}
	found := m.Found
	if e := tx.Decided(key, m.Hash); e != nil {
		found = e.found
	} else if !tx.index.StillValid(&found, m.Hash) {
		var err error
		if found, err = tx.index.Find(m.Acc, m.ID, m.Hash); err != nil {
			return err
		}
	}
	if !found.OK {
		tx.steps = append(tx.steps, kvlog.Step{Hash: m.Hash, At: -1, Tombstone: tx.addTombstone(key, m.Origin)})
	}
	return nil
}

// Stored returns the body of the record of a value that this transaction has stored, or nil if
// it has not stored one. It is valid until the transaction stores another value.
func (tx *Tx) Stored(e *ValueEntry) []byte {
	if e.after == 0 {
		return nil
	}
	step := &tx.steps[e.after-1]
	return tx.records.Body(step.At)
}
