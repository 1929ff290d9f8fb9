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

// ErrDamaged is returned when a value cannot be read because its record fails its
// checksum. Other keys are not affected.
var ErrDamaged = kvlog.ErrDamaged

// MaxType is the longest Content-Type kept, in bytes.
const MaxType = 255

// MaxEncoding is the longest Content-Encoding kept, in bytes.
const MaxEncoding = 64

// AnyVersion as a check means that any version, or none, is accepted.
const AnyVersion = -1

// Value is what a key holds.
type Value struct {
	Data    []byte
	Size    int    // bytes of the value, also if Data was not read
	Type    string // Content-Type
	Version int64

	Encoding string        // Content-Encoding; empty: none
	Left     time.Duration // until the value ends; 0: it has no end
}

// valueOf returns the value of a record at now.
func valueOf(v *kvlog.Value, now int64) Value {
	val := Value{Data: v.Data, Size: v.Length, Type: string(v.Type), Version: int64(v.Version), Encoding: string(v.Encoding)}
	if v.Expires != 0 {
		val.Left = time.Duration(v.Expires - now)
	}
	return val
}

// lookup is the key of a value and the record that its index entry pointed to when the
// operation was submitted. Usually that still holds when the writer decides, so the
// writer seldom reads the disk.
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

// entry returns the transaction's entry for the key. With damaged, a damaged record is not
// an error: it can be replaced, but not compared.
func (l *lookup) entry(tx *commit.Tx, damaged bool) (*commit.ValueEntry, error) {
	if e := tx.Decided(l.key, l.hash); e != nil {
		return e, nil
	}
	found, err := l.found, l.err
	if err != nil || !l.d.store.Values.StillValid(&found, l.hash) {
		found, err = l.d.store.Values.Find(l.key.Acc, l.key.ID, l.hash)
	}
	// If the record cannot be read only for the moment, replacing it would leave two index
	// entries for the key.
	switch {
	case disk.IsNoDescriptor(err):
		return nil, ErrDescriptors
	case err != nil && (!damaged || !kvlog.IsBad(err)):
		return nil, err
	}
	return tx.AddValue(l.key, l.hash, found), nil
}

// Conditions are conditions on a key's version.
type Conditions struct {
	Check int64 // AnyVersion, 0 (only if there is no value), or the version that it must have
	// Match, if given, must contain the current version. NoneMatch must not contain it.
	Match, NoneMatch Versions
}

// Versions is a set of versions, as in the headers If-Match and If-None-Match.
type Versions struct {
	Given bool
	Any   bool // every version
	List  []int64
}

// Has reports whether a version is in the set. 0 stands for no value and is never in it.
func (v *Versions) Has(version int64) bool {
	return version != 0 && (v.Any || slices.Contains(v.List, version))
}

// MatchError is returned when Match or NoneMatch of the Conditions fails. Nothing changed.
type MatchError struct {
	Match   bool  // Match failed; false: NoneMatch failed
	Version int64 // the current version; 0: no value
}

func (e *MatchError) Error() string {
	return fmt.Sprintf("the condition on the version does not hold: it is %d", e.Version)
}

// check returns an error if the conditions do not hold.
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

// CheckVersion returns a *ConflictError if the current version, 0 for no value, is not the
// one that is asked for. With AnyVersion it returns nil.
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
	Data     []byte        // must not change before the operation is answered
	Type     string        // Content-Type, at most MaxType bytes
	Encoding string        // Content-Encoding, at most MaxEncoding bytes
	TTL      time.Duration // 0: no end
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

// Decide stores the value. It returns a *ConflictError or a *MatchError if the conditions
// do not hold.
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

// Frees is true: compaction can free the value's room.
func (o *ValueDelete) Frees() bool { return true }

func (o *ValueDelete) account() string { return o.Key.Acc }

func (o *ValueDelete) prepare(d *DB) error {
	o.Fence.prepare(d)
	return o.lookup.prepare(d, o.Key)
}

// Decide removes the value. It returns a *ConflictError or a *MatchError if the conditions
// do not hold. Without conditions a missing value is not an error.
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
	if e.Found().OK { // also if it has expired: it must not come back
		tx.RemoveValue(e, true, 0)
	}
	return nil
}

// Get returns the value of a key, however large it is, or ErrNotFound or ErrDamaged.
func (d *DB) Get(k Key) (Value, error) { return d.Read(context.Background(), k, math.MaxInt) }

// Head is Get without the value's Data, which is not read. The error may also be ErrReads
// or the context's.
func (d *DB) Head(ctx context.Context, k Key) (Value, error) { return d.Read(ctx, k, -1) }

// Read is Get for a caller that has memory for most bytes. A larger value comes without
// its Data, as from Head.
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
