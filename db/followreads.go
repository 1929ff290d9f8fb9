package db

import (
	"errors"
	"slices"

	"clouddragon/internal/lease"
	"clouddragon/slots"
)

// A follower has no writer that could read locks and rates. These reads take them from the
// tables, as the applied batches left them. Queues are in the memory of the other server, so
// a follower sees no waiters.

// tableRead is an operation that can also read from the tables.
type tableRead interface {
	readTables(d *DB) error
}

// errFollows is returned by operations that only a writer can decide.
var errFollows = errors.New("this data directory follows another server: nothing is decided here")

// readFollowed is Do for a follower.
func (d *DB) readFollowed(op Operation) error {
	read, ok := op.(tableRead)
	if !ok {
		return errFollows
	}
	err := read.readTables(d)
	if moved := d.Readable(op.account()); op.account() != "" && moved != nil {
		return moved
	}
	return err
}

// tableLocks returns the locks with slots that want chooses. If batches are applied all the
// time, it may have a lock as of two moments.
func (d *DB) tableLocks(want func(s *slots.Slot) bool) *lease.Table {
	for try := 0; ; try++ {
		d.awaitPublished()
		before, _ := d.writer.Changes()
		t := lease.New(nil, nil)
		d.store.Tables.Scan(kindLock, holdSize, func(s *slots.Slot) {
			if want(s) {
				t.Restore(lease.Key{Acc: string(s.Acc), ID: string(s.ID)}, holdOf(s.Sub, s.Payload))
			}
		})
		if now, ok := d.writer.Changes(); ok && now == before || try == settleTries {
			return t
		}
	}
}

func (o *LockRead) readTables(d *DB) (err error) {
	t := d.tableLocks(func(s *slots.Slot) bool { return string(s.Acc) == o.Key.Acc && string(s.ID) == o.Key.ID })
	m := d.store.Clock.Read()
	o.Holders, err = listHolders(t, m.Now, func(at int64) int64 { return m.Wall + at - m.Now }, "lock", o.Key, o.Token)
	return err
}

func (o *lockList) readTables(d *DB) error {
	ids := make(map[string]bool, len(o.ids))
	for _, id := range o.ids {
		ids[id] = true
	}
	t := d.tableLocks(func(s *slots.Slot) bool { return string(s.Acc) == o.acc && ids[string(s.ID)] })
	m := d.store.Clock.Read()
	t.Held(m.Now, func(k lease.Key, h lease.Holder) {
		o.items[k.ID] = Listed{ID: k.ID, Holder: holderOf(h, m.Now, m.Wall+h.Expires-m.Now, 0)}
	})
	return nil
}

// lockedAccounts returns the accounts after one in which a lock is held, sorted.
func (d *DB) lockedAccounts(after string) []string {
	t := d.tableLocks(func(s *slots.Slot) bool { return string(s.Acc) > after && !Internal(string(s.ID)) })
	var accounts []string
	t.Held(d.store.Clock.Now(), func(k lease.Key, _ lease.Holder) { accounts = append(accounts, k.Acc) })
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

func (o *RateRead) readTables(d *DB) error {
	var buf [slots.MaxPayload]byte
	b, ok := d.store.Tables.Get(o.thing.key, o.thing.hash, buf[:0])
	now := d.store.Clock.Now()
	at := now
	if ok {
		at = max(at, rateEnd(b))
	}
	o.State = o.Rate.state(now, at, false)
	return nil
}
