package db

import (
	"fmt"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// Fence makes a write depend on a lock on disk. The write is done only while the token
// holds the lock, so a holder that was overtaken cannot write. This is decided in the same
// transaction as the write. The zero Fence has no condition.
type Fence struct {
	Lock  string // the lock's id, in the account of the write
	Token int64  // 0: no fence

	locks *locks
}

func (f *Fence) prepare(d *DB) { f.locks = d.locks }

// check returns a *ConflictError unless the token holds the lock.
func (f *Fence) check(tx *commit.Tx, acc string) error {
	if f.Token == 0 {
		return nil
	}
	if _, ok := f.locks.table.Holder(tx.Now(), lease.Key{Acc: acc, ID: f.Lock}, f.Token); !ok {
		return &ConflictError{fmt.Sprintf("token %d does not hold lock %q: nothing was changed", f.Token, f.Lock)}
	}
	return nil
}
