package db

import "time"

// Blocking calls: each submits one operation and waits for its answer.

// AddSequence adds n, 1 to MaxBlock, and returns the new value. The caller owns the n
// numbers up to it. The errors are those of SequenceAdd.Decide.
func (d *DB) AddSequence(k Key, n int64) (int64, error) {
	o := SequenceAdd{Key: k, N: n}
	err := d.Do(&o)
	return o.Value, err
}

// ResetSequence makes the sequence start again at 1.
func (d *DB) ResetSequence(k Key) error { return d.Do(&NumberReset{Key: k}) }

// AddCounter adds to a counter and returns the new value. A new counter starts from 0.
// The errors are those of CounterAdd.Decide.
func (d *DB) AddCounter(k Key, add, min, max int64) (int64, error) {
	o := CounterAdd{Key: k, Add: add, Min: min, Max: max}
	err := d.Do(&o)
	return o.Value, err
}

// ResetCounter removes the counter.
func (d *DB) ResetCounter(k Key) error { return d.Do(&NumberReset{Key: k, Counter: true}) }

// SetRequest stores a value.
type SetRequest struct {
	Key   Key
	Data  []byte
	Type  string        // Content-Type, at most MaxType bytes
	TTL   time.Duration // 0: no end
	Check int64         // AnyVersion, 0 (only if there is no value), or the version that it must have
}

// Set stores a value and returns its version. The errors are those of ValueSet.Decide.
func (d *DB) Set(r SetRequest) (version int64, err error) {
	o := ValueSet{Key: r.Key, Data: r.Data, Type: r.Type, TTL: r.TTL, Conditions: Conditions{Check: r.Check}}
	err = d.Do(&o)
	return o.Version, err
}

// DeleteValue removes a value. The errors are those of ValueDelete.Decide.
func (d *DB) DeleteValue(k Key, check int64) error {
	return d.Do(&ValueDelete{Key: k, Conditions: Conditions{Check: check}})
}

// Unlock gives a lock back. The errors are those of LockRelease.Decide.
func (d *DB) Unlock(r UnlockRequest) error { return d.Do(&LockRelease{UnlockRequest: r}) }

// LockHolder returns the oldest holder of a lock, or ErrNotFound.
func (d *DB) LockHolder(k Key) (Holder, error) {
	all, err := d.LockHolders(k, 0)
	if err != nil {
		return Holder{}, err
	}
	return all.Holders[0], nil
}

// LockHolders returns who holds a lock and who waits for it, or ErrNotFound if it is
// free. With a token that is not 0 it returns only the holder that has it, or a
// *HeldError.
func (d *DB) LockHolders(k Key, token int64) (Holders, error) {
	o := LockRead{Key: k, Token: token}
	err := d.Do(&o)
	return o.Holders, err
}
