package db

import "clouddragon/db/commit"

// Internal reports whether an id is one of the server's own. Clients cannot use such ids,
// because they begin with a NUL byte.
func Internal(id string) bool { return id != "" && id[0] == 0 }

// HiddenData is the prefix of the ids of the server's own values that keep something of a
// client: an account in which only they are is not empty. See commit.HiddenData.
const HiddenData = commit.HiddenData

// ValueCheck is an operation for a Batch. It refuses the batch unless a value has a given
// version.
type ValueCheck struct {
	Key   Key
	Check int64 // 0 (there must be no value), or the version that it must have

	lookup lookup
}

// Size is 0: reading needs no room.
func (o *ValueCheck) Size() int { return 0 }

// Frees is true.
func (o *ValueCheck) Frees() bool { return true }

func (o *ValueCheck) account() string { return o.Key.Acc }

func (o *ValueCheck) prepare(d *DB) error { return o.lookup.prepare(d, o.Key) }

// Decide returns a *ConflictError if the version is different.
func (o *ValueCheck) Decide(tx *commit.Tx) error {
	e, err := o.lookup.entry(tx, false)
	if err != nil {
		return err
	}
	return o.lookup.check(tx, e, &Conditions{Check: o.Check})
}
