package db

import (
	"fmt"
	"math"
	"time"

	"clouddragon/db/commit"
	"clouddragon/slots"
)

// The payload of a counter's slot; part of the file format, never changed.
//
//	0  i64 value
//	8  i64 end in database time, ns; only if the counter has an end
const (
	counterSize     = numberSize
	counterWithTime = counterSize + 8
)

// CounterAdd is the operation that adds to a counter or sets it. A new counter starts
// from 0.
type CounterAdd struct {
	Key Key
	Add int64
	Set bool // set the counter to Add
	// Min and Max are the bounds of the result. Without bounds they are math.MinInt64
	// and math.MaxInt64.
	Min, Max int64
	If       CounterIf
	Fence    Fence
	// TTL is how long the counter exists from now on. It applies if this operation makes
	// the counter, and with Touch in any case. With 0 the end stays as it is, and a new
	// counter has no end.
	TTL   time.Duration
	Touch bool

	// Value is the answer: the new value.
	Value int64

	thing thing
}

// CounterIf is a condition on a counter. The zero CounterIf has no condition.
type CounterIf struct {
	Asked bool
	None  bool // the counter must not exist
	Value int64
}

// Size returns the most bytes that the operation adds to the log.
func (o *CounterAdd) Size() int { return commit.SlotChange }

// Frees is false.
func (o *CounterAdd) Frees() bool { return false }

func (o *CounterAdd) account() string { return o.Key.Acc }

func (o *CounterAdd) prepare(d *DB) error {
	o.Fence.prepare(d)
	o.thing.set(kindCounter, o.Key)
	return nil
}

// Decide adds or sets. It returns a *ConflictError if the condition If fails or the result
// would be out of bounds.
func (o *CounterAdd) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	e := o.thing.entry(tx)
	cur, ends, live := int64(0), int64(0), e.Live()
	if live {
		cur, ends = readCounter(e.Payload())
		if ends != 0 && ends <= tx.Now() {
			cur, ends, live = 0, 0, false
			tx.Date() // the expired counter must not come back
		}
	}
	if err := o.If.check(o.Key.ID, cur, live); err != nil {
		return err
	}
	next, err := o.next(cur)
	if err != nil {
		return err
	}
	same, newEnd := live && next == cur, o.TTL != 0 && (o.Touch || !live)
	if newEnd {
		ends = tx.Now() + int64(o.TTL)
		tx.Date()
	}
	o.Value = next
	if same && !newEnd {
		return nil // nothing is written, and there is no event
	}
	size := counterSize
	if ends != 0 {
		size = counterWithTime
	}
	b := tx.Bytes(size)
	le.PutUint64(b, uint64(next))
	if ends != 0 {
		le.PutUint64(b[counterSize:], uint64(ends))
	}
	if same {
		return tx.PutEnd(e, b)
	}
	return tx.Put(e, b)
}

func (c *CounterIf) check(id string, cur int64, live bool) error {
	switch {
	case !c.Asked:
	case c.None && live:
		return &ConflictError{fmt.Sprintf("counter %q exists, and is at %d; if=none was asked for", id, cur)}
	case !c.None && !live:
		return &ConflictError{fmt.Sprintf("counter %q does not exist; if=%d was asked for", id, c.Value)}
	case !c.None && cur != c.Value:
		return &ConflictError{fmt.Sprintf("counter %q is at %d; if=%d was asked for", id, cur, c.Value)}
	}
	return nil
}

// next returns the new value of a counter that is at cur.
func (o *CounterAdd) next(cur int64) (int64, error) {
	id, add := o.Key.ID, o.Add
	if o.Set {
		cur = 0
	}
	if add > 0 && cur > math.MaxInt64-add || add < 0 && cur < math.MinInt64-add {
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d overflows", id, cur, add)}
	}
	next := cur + add
	switch {
	case next >= o.Min && next <= o.Max:
		return next, nil
	case o.Set && next < o.Min:
		return 0, &ConflictError{fmt.Sprintf("counter %q cannot be set to %d, under min=%d", id, next, o.Min)}
	case o.Set:
		return 0, &ConflictError{fmt.Sprintf("counter %q cannot be set to %d, over max=%d", id, next, o.Max)}
	case next < o.Min:
		return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, under min=%d", id, cur, add, next, o.Min)}
	}
	return 0, &ConflictError{fmt.Sprintf("counter %q is at %d: adding %d gives %d, over max=%d", id, cur, add, next, o.Max)}
}

// readCounter decodes a counter's payload. ends is 0 if the counter has no end.
func readCounter(payload []byte) (value, ends int64) {
	value = int64(le.Uint64(payload))
	return value, counterEnd(payload)
}

// counterEnd is the commit.EndOf of counters.
func counterEnd(payload []byte) int64 {
	if len(payload) < counterWithTime {
		return 0
	}
	return int64(le.Uint64(payload[counterSize:]))
}

// Counter returns the value of a counter, or ErrNotFound.
func (d *DB) Counter(k Key) (int64, error) {
	value, _, err := d.CounterTTL(k)
	return value, err
}

// CounterTTL returns the value of a counter and the time that is left, 0 if it has no end.
// If there is no counter, it returns ErrNotFound.
func (d *DB) CounterTTL(k Key) (value int64, left time.Duration, err error) {
	key := slots.Key{Kind: kindCounter, Acc: k.Acc, ID: k.ID}
	var buf [counterWithTime]byte
	b, ok := d.store.Tables.Get(key, key.Hash(), buf[:0])
	if err := d.Readable(k.Acc); err != nil {
		return 0, 0, err
	}
	if !ok {
		return 0, 0, ErrNotFound
	}
	value, ends := readCounter(b)
	if ends == 0 {
		return value, 0, nil
	}
	if left = time.Duration(ends - d.store.Clock.Now()); left <= 0 {
		return 0, 0, ErrNotFound
	}
	return value, left, nil
}
