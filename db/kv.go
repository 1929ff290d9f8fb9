package db

import (
	"context"
	"fmt"
	"math"

	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// ErrDamaged is returned when the value that a key has cannot be read: its
// record fails its checksum. Other keys are as before.
var ErrDamaged = kvlog.ErrDamaged

// valueOp is what an operation on a value has besides the op.
type valueOp struct {
	data  []byte
	typ   string
	sum   uint32 // of data
	ttl   int64  // ns; 0: for good
	check int64  // as SetRequest.Check

	// What the caller found before it handed the operation over, so that the
	// writer seldom reads: the pages are warm, and the answer mostly holds yet.
	found kvlog.Found
	err   error
}

// room is the most that the operation adds to a batch.
func (v *valueOp) room(k slots.Key) int {
	return wal.RecordSize(kvlog.ValueSize(k.Acc, k.ID, v.typ, len(v.data)))
}

// valueChange is what a batch has decided about one key so far.
type valueChange struct {
	key   slots.Key
	hash  uint64
	next  int32 // the change before it with the same hash, plus one
	found kvlog.Found
	after int // the step that put it there, plus one; 0: it was there before
}

// Set stores a value and returns its version. A *ConflictError says that the
// version is another than the one asked for.
func (d *DB) Set(r SetRequest) (version int64, err error) {
	v := valueOp{data: r.Data, typ: r.Type, sum: kvlog.SumValue(r.Data), ttl: int64(r.TTL), check: r.Check}
	o, err := d.lookUp(verbSet, r.Key, &v)
	if err != nil {
		return 0, err
	}
	defer o.free()
	err = d.do(o)
	return o.value, noDescriptor(err)
}

// DeleteValue removes a value; with a check that is not AnyVersion, only that
// version, and a *ConflictError if it is gone or another. Without, that there is
// none is no error.
func (d *DB) DeleteValue(k Key, check int64) error {
	v := valueOp{check: check}
	o, err := d.lookUp(verbDelete, k, &v)
	if err != nil {
		return err
	}
	defer o.free()
	return noDescriptor(d.do(o))
}

// noDescriptor makes a look-up that found no descriptor a refusal.
func noDescriptor(err error) error {
	if disk.IsNoDescriptor(err) {
		return ErrDescriptors
	}
	return err
}

// Get returns the value of a key, or ErrNotFound, or ErrDamaged, however large
// the value is.
func (d *DB) Get(k Key) (Value, error) { return d.Read(context.Background(), k, math.MaxInt) }

// Head is Get without the value's Data, of which nothing is read. The error may
// also be ErrReads, or that of the context.
func (d *DB) Head(ctx context.Context, k Key) (Value, error) { return d.Read(ctx, k, -1) }

// Read is Get for a caller that has memory for so many bytes: a value of more than
// most bytes comes without its Data, as from Head.
func (d *DB) Read(ctx context.Context, k Key, most int) (Value, error) {
	if err := d.reads.begin(ctx); err != nil {
		return Value{}, err
	}
	defer d.reads.end()
	val, ok, err := d.values.Get(k.Acc, k.ID, d.values.Hash(k.Acc, k.ID), most)
	if disk.IsNoDescriptor(err) {
		return Value{}, ErrDescriptors
	}
	if err != nil {
		d.logger.Error("a value cannot be read", "err", err)
		return Value{}, err
	}
	if ok && val.Expires != 0 {
		ok = !val.Expired(d.clock.now())
	}
	if !ok {
		return Value{}, ErrNotFound
	}
	return Value{Data: val.Data, Size: val.Length, Type: string(val.Type), Version: int64(val.Version)}, nil
}

// lookUp is newValueOp as one of the reads that may be under way.
func (d *DB) lookUp(verb verb, k Key, v *valueOp) (*op, error) {
	if err := d.reads.begin(context.Background()); err != nil {
		return nil, err
	}
	defer d.reads.end()
	return d.newValueOp(verb, k, v), nil
}

func (d *DB) newValueOp(verb verb, k Key, v *valueOp) *op {
	o := ops.Get().(*op)
	o.verb, o.kv = verb, v
	o.key = slots.Key{Acc: k.Acc, ID: k.ID}
	o.hash = d.values.Hash(k.Acc, k.ID)
	v.found, v.err = d.values.Find(k.Acc, k.ID, o.hash)
	return o
}

// findValue returns what is known of a key, decided or durable. The pointer is
// good until the next call.
func (d *DB) findValue(o *op) (*valueChange, error) {
	if c := d.batch.value(o.key, o.hash); c != nil {
		return c, nil
	}
	found, err := o.kv.found, o.kv.err
	if err != nil || !d.values.StillValid(&found, o.hash) {
		found, err = d.values.Find(o.key.Acc, o.key.ID, o.hash)
	}
	// A damaged record can be replaced, but not compared. One that is only not to
	// be read for the moment would come back beside what replaced it.
	if err != nil && (!kvlog.IsBad(err) || o.verb != verbSet || o.kv.check != AnyVersion) {
		return nil, err
	}
	return d.batch.addValue(o.key, o.hash, found), nil
}

// value returns what the batch has on a key; nil if nothing. The pointer is good
// until the next addValue.
func (p *pending) value(k slots.Key, hash uint64) *valueChange {
	for i := p.byValue[hash]; i != 0; i = p.values[i-1].next {
		if c := &p.values[i-1]; c.key == k {
			return c
		}
	}
	return nil
}

func (p *pending) addValue(k slots.Key, hash uint64, found kvlog.Found) *valueChange {
	p.values = append(p.values, valueChange{key: k, hash: hash, next: p.byValue[hash], found: found})
	p.byValue[hash] = int32(len(p.values))
	return &p.values[len(p.values)-1]
}

// mark adds the record that a key has no value, and returns its size.
func (p *pending) mark(k slots.Key, origin uint64) int {
	at := p.records.Len()
	kvlog.PutTombstone(p.records.Add(kvlog.TypeTombstone, kvlog.TombstoneSize(k.Acc, k.ID)), k.Acc, k.ID, origin)
	return p.records.Len() - at
}

// live says whether the key has a value at now, in database time.
func (c *valueChange) live(now int64) bool {
	return c.found.OK && (c.found.Expires == 0 || c.found.Expires > now)
}

// checkVersion says why a key does not have the version asked for, if it does not.
func (c *valueChange) checkVersion(check, now int64) error {
	live := c.live(now)
	switch {
	case check == AnyVersion:
	case check == 0 && live:
		return &ConflictError{fmt.Sprintf("value %q exists, with version %d; ver=0 asks for none", c.key.ID, c.found.Version)}
	case check != 0 && !live:
		return &ConflictError{fmt.Sprintf("value %q does not exist; ver=%d was asked for", c.key.ID, check)}
	case check != 0 && c.found.Version != uint64(check):
		return &ConflictError{fmt.Sprintf("value %q has version %d; ver=%d was asked for", c.key.ID, c.found.Version, check)}
	}
	return nil
}

func (d *DB) decideSet(o *op) {
	c, err := d.findValue(o)
	if err == nil {
		err = c.checkVersion(o.kv.check, d.now)
	}
	if err != nil {
		o.err = err
		return
	}
	p := d.batch
	p.versions++
	var expires int64
	if o.kv.ttl != 0 {
		expires = d.now + o.kv.ttl
		p.dated = true
	}
	at := p.records.Len()
	body := p.records.AddDirty(kvlog.TypeValue, kvlog.ValueSize(c.key.Acc, c.key.ID, o.kv.typ, len(o.kv.data)))
	d.values.Put(body, c.key.Acc, c.key.ID, o.kv.typ, p.versions, expires, o.kv.data, o.kv.sum)
	size := p.records.Len() - at
	p.steps = append(p.steps, kvlog.Step{Hash: c.hash, At: at, Size: size, Expires: expires, Old: c.found, After: c.after})
	c.found = kvlog.Found{OK: true, Version: p.versions, Expires: expires, Size: size}
	c.after = len(p.steps)
	o.value = int64(p.versions)
}

func (d *DB) decideDelete(o *op) {
	c, err := d.findValue(o)
	if err == nil {
		err = c.checkVersion(o.kv.check, d.now)
	}
	if err != nil {
		o.err = err
		return
	}
	if c.found.OK { // also if its time is over: it must not come back
		d.endValue(c, 0, true)
	}
}

// endValue takes a key's value away, with a mark or without.
func (d *DB) endValue(c *valueChange, origin uint64, mark bool) {
	p := d.batch
	step := kvlog.Step{Hash: c.hash, At: -1, Old: c.found, After: c.after}
	if mark {
		step.Tombstone = p.mark(c.key, origin)
	}
	p.steps = append(p.steps, step)
	c.found, c.after = kvlog.Found{}, 0
}
