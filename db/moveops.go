package db

import (
	"context"
	"errors"
	"fmt"
	"math"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// The operations of a move. None of them is done for a client, so they have no account.

// markSet is the operation that stores the marks of all accounts.
type markSet struct {
	ValueSet
	raise int64 // later versions are above this
}

func (*markSet) account() string { return "" }

// Frees is true: accounts must be able to leave a full disk, and to come back.
func (*markSet) Frees() bool { return true }

// Decide stores the marks.
func (o *markSet) Decide(tx *commit.Tx) error {
	tx.RaiseVersion(uint64(o.raise))
	return o.ValueSet.Decide(tx)
}

// handed is the operation that reads which versions and tokens were given out so far.
type handed struct{ version, token int64 }

// Size is 0: reading needs no room.
func (*handed) Size() int { return 0 }

// Frees is true.
func (*handed) Frees() bool { return true }

func (*handed) account() string { return "" }

func (*handed) prepare(*DB) error { return nil }

// Decide reads them.
func (o *handed) Decide(tx *commit.Tx) error {
	version, token := tx.Handed()
	o.version, o.token = int64(version), token
	return nil
}

// holders is the operation that reads all holders of a lock.
type holders struct {
	key   Key
	all   []lease.Holder // the oldest first
	now   int64
	locks *locks
}

// Size is 0: reading needs no room.
func (*holders) Size() int { return 0 }

// Frees is true.
func (*holders) Frees() bool { return true }

func (*holders) account() string { return "" }

func (o *holders) prepare(d *DB) error {
	o.locks = d.locks
	return nil
}

// Decide reads them.
func (o *holders) Decide(tx *commit.Tx) error {
	o.now, o.all = tx.Now(), o.locks.table.Holders(tx.Now(), lease.Key(o.key), math.MaxInt)
	return nil
}

// moveIn is the operation that stores one record of an account that arrives.
type moveIn struct {
	acc, move, attempt string
	rec                *MoveRecord

	d      *DB
	lookup lookup
	sum    uint32
}

// Size returns the most bytes that the operation adds to the log.
func (o *moveIn) Size() int {
	if r := o.rec; r.Kind == valueKind {
		return wal.RecordSize(kvlog.ValueSize(o.acc, r.ID, r.Type, r.Encoding, len(r.Payload)))
	}
	return commit.SlotChange
}

// Frees is false.
func (*moveIn) Frees() bool { return false }

func (*moveIn) account() string { return "" }

func (o *moveIn) prepare(d *DB) error {
	o.d = d
	if o.rec.Kind != valueKind {
		return nil
	}
	o.sum = kvlog.SumValue(o.rec.Payload)
	return o.lookup.prepare(d, Key{o.acc, o.rec.ID})
}

// Decide stores the record unchanged. A *ConflictError says that the account does not
// arrive in this attempt.
func (o *moveIn) Decide(tx *commit.Tx) error {
	if m := o.d.moveOf(o.acc); m.State != Arriving || m.ID != o.move || m.Attempt != o.attempt {
		return &ConflictError{fmt.Sprintf("account %q is not arriving in this attempt to move it: another attempt has replaced or ended it", o.acc)}
	}
	if o.rec.Kind == valueKind {
		return o.value(tx)
	}
	rec := *o.rec
	rec.Payload = tx.Bytes(len(o.rec.Payload))
	copy(rec.Payload, o.rec.Payload)
	rec.shift(tx.Now())
	tx.Date()
	k := slots.Key{Kind: rec.Kind, Acc: o.acc, ID: rec.ID, Sub: rec.Sub}
	if rec.Kind == kindLock {
		l := o.d.locks
		l.begin(tx)
		if !l.table.Import(lease.Key{Acc: o.acc, ID: rec.ID}, rec.hold()) {
			return nil
		}
	}
	return tx.Put(tx.Entry(k, k.Hash()), rec.Payload)
}

func (o *moveIn) value(tx *commit.Tx) error {
	e, err := o.lookup.entry(tx, true)
	if err != nil {
		return err
	}
	r := o.rec
	v := commit.NewValue{Type: r.Type, Encoding: r.Encoding, Data: r.Payload, Sum: o.sum}
	if r.Expires != 0 {
		v.Expires = tx.Now() + r.Expires
	}
	tx.ImportValue(e, &v, r.Version)
	return nil
}

// moveOut is the operation that removes one thing of an account that lives elsewhere.
type moveOut struct {
	kind uint8
	key  Key
	mark Move // that the account must still have

	d      *DB
	lookup lookup
	thing  thing
}

// Size returns the most bytes that the operation adds to the log.
func (o *moveOut) Size() int {
	if o.kind == valueKind {
		return wal.RecordSize(kvlog.TombstoneSize(o.key.Acc, o.key.ID))
	}
	return commit.SlotChange
}

// Frees is true.
func (*moveOut) Frees() bool { return true }

func (*moveOut) account() string { return "" }

func (o *moveOut) prepare(d *DB) error {
	o.d = d
	if o.kind == valueKind {
		return o.lookup.prepare(d, o.key)
	}
	o.thing.set(o.kind, o.key)
	return nil
}

// Decide removes it. A *ConflictError says that the account has another mark by now: it may
// have come back, and then this belongs to it.
func (o *moveOut) Decide(tx *commit.Tx) error {
	if m := o.d.moveOf(o.key.Acc); m.State != o.mark.State || m.ID != o.mark.ID || m.Attempt != o.mark.Attempt {
		return &ConflictError{fmt.Sprintf("account %q moves again: nothing more of it is removed", o.key.Acc)}
	}
	switch o.kind {
	case valueKind:
		e, err := o.lookup.entry(tx, true)
		if err != nil {
			return err
		}
		if e.Found().OK {
			tx.RemoveValue(e, true, 0)
		}
	case kindLock:
		l := o.d.locks
		l.begin(tx)
		return l.apply(tx, l.table.Release(tx.Now(), lease.Key(o.key), "", 0, true).Events)
	default:
		if e := o.thing.entry(tx); e.Live() {
			tx.Remove(e)
		}
	}
	return nil
}

// doAll submits operations together, and returns the first error.
func (d *DB) doAll(ops []Operation) error {
	if len(ops) == 0 {
		return nil
	}
	calls, done := make([]*Call, len(ops)), make(chan *Call, len(ops))
	for i, op := range ops {
		calls[i] = &Call{Op: op, Done: func(c *Call) { done <- c }}
	}
	d.SubmitAll(true, calls)
	var first error
	for range ops {
		if c := <-done; first == nil {
			first = c.Err
		}
	}
	return first
}

// eachOf calls fn with everything of an account except its mutexes, including ids that are
// internal to the server. It calls fn once for a lock, and perhaps twice for a value that is
// compacted meanwhile. It reads everything that the server has.
func (d *DB) eachOf(ctx context.Context, acc string, fn func(kind uint8, id string) error) error {
	open := func() error {
		if d.draining.Load() {
			return ErrStopping
		}
		return context.Cause(ctx)
	}
	locks := map[string]bool{}
	var keys []slots.Key
	for class := range slots.Classes {
		for from, more := uint64(0), true; more; {
			keys, from, more = d.store.Tables.AppendKeys(keys[:0], class, from)
			if err := open(); err != nil {
				return err
			}
			for _, k := range keys {
				if k.Acc != acc || k.Kind == kindLock && locks[k.ID] {
					continue
				}
				if k.Kind == kindLock {
					locks[k.ID] = true
				}
				if err := fn(k.Kind, k.ID); err != nil {
					return err
				}
			}
		}
	}
	var fault error
	unread, _ := d.store.Values.EachName(func(of, id string) bool {
		if fault = open(); fault == nil && of == acc {
			fault = fn(valueKind, id)
		}
		return fault == nil
	})
	switch {
	case fault != nil:
		return fault
	case unread > 0:
		return fmt.Errorf("%d values of this server cannot be read, and may be of account %q: see clouddragon verify", unread, acc)
	}
	return nil
}

// removeAll removes everything of an account that does not live here, as long as the account
// has that mark.
func (d *DB) removeAll(ctx context.Context, acc string, mark Move) error {
	const atOnce = 256
	var ops []Operation
	flush := func() error {
		err := d.doAll(ops)
		ops = ops[:0]
		return err
	}
	err := d.eachOf(ctx, acc, func(kind uint8, id string) error {
		ops = append(ops, &moveOut{kind: kind, key: Key{acc, id}, mark: mark})
		if len(ops) < atOnce {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}
