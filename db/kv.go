package db

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// ErrDamaged is returned when the value that a key has cannot be read: its
// record fails its checksum. Other keys are as before.
var ErrDamaged = kvlog.ErrDamaged

// MaxType is the longest Content-Type kept, in bytes.
const MaxType = 255

// MaxEncoding is the longest Content-Encoding kept, in bytes.
const MaxEncoding = 64

// AnyVersion as a check means that no version is asked for.
const AnyVersion = -1

// Value is what a key holds.
type Value struct {
	Data    []byte
	Size    int    // bytes of the value, also where Data was not read
	Type    string // Content-Type
	Version int64

	Encoding string        // Content-Encoding; empty: none
	Left     time.Duration // until the value is gone; 0: it has no end
}

// valueOf is what a record says of a value at now.
func valueOf(v *kvlog.Value, now int64) Value {
	val := Value{Data: v.Data, Size: v.Length, Type: string(v.Type), Version: int64(v.Version), Encoding: string(v.Encoding)}
	if v.Expires != 0 {
		val.Left = time.Duration(v.Expires - now)
	}
	return val
}

// lookup is the key of a value, and what its index entry pointed to when the
// operation was submitted. The writer seldom has to read: the answer mostly holds.
type lookup struct {
	d     *DB
	key   slots.Key
	hash  uint64
	found kvlog.Found
	err   error
}

func (l *lookup) prepare(d *DB, k Key) error {
	if err := d.reads.begin(context.Background()); err != nil {
		return err
	}
	defer d.reads.end()
	l.d, l.key = d, slots.Key{Acc: k.Acc, ID: k.ID}
	l.hash = d.store.Values.Hash(k.Acc, k.ID)
	l.found, l.err = d.store.Values.Find(k.Acc, k.ID, l.hash)
	return nil
}

// entry returns what is known of the key, decided or durable. With damaged a record
// that is damaged is no error: it can be replaced, but not compared.
func (l *lookup) entry(tx *commit.Tx, damaged bool) (*commit.ValueEntry, error) {
	if e := tx.Decided(l.key, l.hash); e != nil {
		return e, nil
	}
	found, err := l.found, l.err
	if err != nil || !l.d.store.Values.StillValid(&found, l.hash) {
		found, err = l.d.store.Values.Find(l.key.Acc, l.key.ID, l.hash)
	}
	// A record that cannot be read only for the moment would come back beside what
	// replaced it.
	switch {
	case disk.IsNoDescriptor(err):
		return nil, ErrDescriptors
	case err != nil && (!damaged || !kvlog.IsBad(err)):
		return nil, err
	}
	return tx.AddValue(l.key, l.hash, found), nil
}

// Conditions are what has to hold of a key's version for a change to be done.
type Conditions struct {
	Check int64 // AnyVersion, 0 (there is no value now), or the version it must have now
	// Match, if given, must have the version that there is; NoneMatch must not.
	Match, NoneMatch Versions
}

// Versions are a set of versions, as the headers If-Match and If-None-Match name one.
type Versions struct {
	Given bool
	Any   bool // every version
	List  []int64
}

// Has reports whether a version is in the set; 0, which stands for no value, never is.
func (v *Versions) Has(version int64) bool {
	return version != 0 && (v.Any || slices.Contains(v.List, version))
}

// MatchError is returned when Match or NoneMatch of a change's Conditions does not
// hold. Nothing changed.
type MatchError struct {
	Match   bool  // Match failed, else NoneMatch
	Version int64 // the version that there is; 0: no value
}

func (e *MatchError) Error() string {
	return fmt.Sprintf("the condition on the version does not hold: it is %d", e.Version)
}

// check says why a key does not fulfil the conditions, if it does not.
func (l *lookup) check(tx *commit.Tx, e *commit.ValueEntry, q *Conditions) error {
	version := int64(0)
	if e.Live(tx.Now()) {
		version = int64(e.Found().Version)
	}
	switch {
	case q.Match.Given && !q.Match.Has(version):
		return &MatchError{Match: true, Version: version}
	case q.NoneMatch.Given && q.NoneMatch.Has(version):
		return &MatchError{Version: version}
	}
	return CheckVersion(l.key.ID, version, q.Check)
}

// CheckVersion returns a *ConflictError if a value at a version, 0 for none, is not
// at the one that is asked for; AnyVersion asks for none.
func CheckVersion(id string, version, check int64) error {
	switch {
	case check == AnyVersion || check == version:
		return nil
	case check == 0:
		return &ConflictError{fmt.Sprintf("value %q exists, with version %d; ver=0 asks for none", id, version)}
	case version == 0:
		return &ConflictError{fmt.Sprintf("value %q does not exist; ver=%d was asked for", id, check)}
	}
	return &ConflictError{fmt.Sprintf("value %q has version %d; ver=%d was asked for", id, version, check)}
}

// ValueSet is the operation that stores a value.
type ValueSet struct {
	Key      Key
	Data     []byte        // not changed before the operation is answered
	Type     string        // Content-Type, at most MaxType bytes
	Encoding string        // Content-Encoding, at most MaxEncoding bytes
	TTL      time.Duration // 0: for good
	Conditions
	Fence Fence

	// Version is the answer.
	Version int64

	lookup lookup
	sum    uint32
}

// Size returns the most bytes that the operation adds to the log.
func (o *ValueSet) Size() int {
	return wal.RecordSize(kvlog.ValueSize(o.Key.Acc, o.Key.ID, o.Type, o.Encoding, len(o.Data)))
}

// Frees is false.
func (o *ValueSet) Frees() bool { return false }

func (o *ValueSet) account() string { return o.Key.Acc }

func (o *ValueSet) prepare(d *DB) error {
	o.Fence.prepare(d)
	o.sum = kvlog.SumValue(o.Data)
	return o.lookup.prepare(d, o.Key)
}

// Decide stores the value. A *ConflictError or a *MatchError says that the
// conditions do not hold.
func (o *ValueSet) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	e, err := o.lookup.entry(tx, o.Check == AnyVersion && !o.Match.Given && !o.NoneMatch.Given)
	if err != nil {
		return err
	}
	if err := o.lookup.check(tx, e, &o.Conditions); err != nil {
		return err
	}
	v := commit.NewValue{Type: o.Type, Encoding: o.Encoding, Data: o.Data, Sum: o.sum}
	if o.TTL != 0 {
		v.Expires = tx.Now() + int64(o.TTL)
	}
	o.Version = int64(tx.PutValue(e, &v))
	return nil
}

// ValueDelete is the operation that removes a value.
type ValueDelete struct {
	Key Key
	Conditions
	Fence Fence

	lookup lookup
}

// Size returns the most bytes that the operation adds to the log.
func (o *ValueDelete) Size() int {
	return wal.RecordSize(kvlog.TombstoneSize(o.Key.Acc, o.Key.ID))
}

// Frees is true: what the value takes can be given back.
func (o *ValueDelete) Frees() bool { return true }

func (o *ValueDelete) account() string { return o.Key.Acc }

func (o *ValueDelete) prepare(d *DB) error {
	o.Fence.prepare(d)
	return o.lookup.prepare(d, o.Key)
}

// Decide removes the value. A *ConflictError or a *MatchError says that the
// conditions do not hold; without any, that there is no value is no error.
func (o *ValueDelete) Decide(tx *commit.Tx) error {
	if err := o.Fence.check(tx, o.Key.Acc); err != nil {
		return err
	}
	e, err := o.lookup.entry(tx, false)
	if err != nil {
		return err
	}
	if err := o.lookup.check(tx, e, &o.Conditions); err != nil {
		return err
	}
	if e.Found().OK { // also if its time is over: it must not come back
		tx.RemoveValue(e, true, 0)
	}
	return nil
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
	values := d.store.Values
	val, ok, err := values.Get(k.Acc, k.ID, values.Hash(k.Acc, k.ID), most)
	if disk.IsNoDescriptor(err) {
		return Value{}, ErrDescriptors
	}
	if err != nil {
		d.log.Error("a value cannot be read", "err", err)
		return Value{}, err
	}
	if err := d.Readable(k.Acc); err != nil {
		return Value{}, err
	}
	now := int64(0)
	if ok && val.Expires != 0 {
		now = d.store.Clock.Now()
		ok = !val.Expired(now)
	}
	if !ok {
		return Value{}, ErrNotFound
	}
	return valueOf(&val, now), nil
}
