package db

import (
	"fmt"
	"sync"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/lease"
	"clouddragon/slots"
)

// The payload of a slot for one holder of a lock. The slot's key is the lock's, with the
// token as its Sub. The payload has room for the longest owner. So the slots of all holders
// of a lock have the same size, and a hand-over can reuse the slot.
// Times are database time.
//
//	 0  i64 end of the hold, or of its rest
//	 8  i64 when it was granted
//	16  i64 end of the least time; 0: there is none
//	24  u32 the most holders that it allows
//	28  u8  1: it was given back and rests until the end of its least time
//	29  u8  length of the owner's id, then the id, then zeros
const (
	holdHead = 30                  // part of the file format, never changed
	holdSize = holdHead + MaxOwner // part of the file format, never changed
)

// lockChange is the most that an operation on a lock with one holder adds to the log.
const lockChange = commit.SlotChange

// locks are the locks on disk: a lease table whose changes are also changes of slots in the
// same transaction. The leader owns it, except for stats.
type locks struct {
	table *lease.Table
	tx    *commit.Tx // the transaction of the current step
	marks []locksMark
	ended []slots.Key // holders that ended in the current step

	perStep int // how many waiters a step may let in

	audit  audit
	lines  []auditLine  // of the current batch
	failed func() error // returns why writes are stopped, or nil
	admit  func(acc string) error

	mu    sync.Mutex // guards what follows
	shown lease.Stats
}

// newLocks returns locks whose steps fit into a log segment of the given size.
func newLocks(waiters *lease.Limit, segment int64) *locks {
	l := &locks{perStep: max(1, int(segment/2)/commit.SlotRecord)}
	l.table = lease.New(l.token, waiters)
	return l
}

// begin prepares a step of the table. The step has to fit into a batch. If a full disk has
// no room for new holders, the step may only replace holders that end in it.
func (l *locks) begin(tx *commit.Tx) {
	l.tx, l.table.MaxGrants = tx, l.perStep
	if tx.Scarce() {
		l.table.MaxGrants = 1
	}
}

// token returns the token of the next grant. If a full disk has no slot for a waiter, the
// waiter is refused. Otherwise it would wait forever and hold up those behind it.
func (l *locks) token(k lease.Key, fresh bool) (int64, error) {
	if err := l.admit(k.Acc); err != nil {
		return 0, err
	}
	if fresh && l.tx.Scarce() && !l.tx.HasSlot(holdKey(k, 1), holdSize) {
		return 0, ErrFull
	}
	return l.tx.Token(), nil
}

// restore loads the holders from the tables during a start.
func (l *locks) restore(s *store.Store) error {
	defer l.Committed()
	return s.Tables.Each(kindLock, func(k slots.Key, payload []byte) error {
		if len(payload) != holdSize || int(payload[29]) > MaxOwner || k.Sub == 0 {
			return fmt.Errorf("lock %q has a holder of %d bytes, want %d", k.ID, len(payload), holdSize)
		}
		l.table.Restore(lease.Key{Acc: k.Acc, ID: k.ID}, holdOf(k.Sub, payload))
		return nil
	})
}

// holdOf is the holder that a payload holds.
func holdOf(token uint64, payload []byte) lease.Holder {
	return lease.Holder{
		Owner:   string(payload[holdHead:][:payload[29]]),
		Token:   int64(token),
		Expires: int64(le.Uint64(payload)),
		Granted: int64(le.Uint64(payload[8:])),
		Least:   int64(le.Uint64(payload[16:])),
		Limit:   int32(le.Uint32(payload[24:])),
		Resting: payload[28] != 0,
	}
}

func holdKey(k lease.Key, token int64) slots.Key {
	return slots.Key{Kind: kindLock, Acc: k.Acc, ID: k.ID, Sub: uint64(token)}
}

func putHold(tx *commit.Tx, h *lease.Holder) []byte {
	b := tx.Bytes(holdSize)
	encodeHold(b, h)
	tx.Date()
	return b
}

func encodeHold(b []byte, h *lease.Holder) {
	le.PutUint64(b, uint64(h.Expires))
	le.PutUint64(b[8:], uint64(h.Granted))
	le.PutUint64(b[16:], uint64(h.Least))
	le.PutUint32(b[24:], uint32(h.Limit))
	if h.Resting {
		b[28] = 1
	}
	b[29] = uint8(len(h.Owner))
	copy(b[holdHead:], h.Owner)
}

// apply turns the events of a step into changes of slots and answers of calls. The error
// is a *commit.NoRoom; then the step has to be undone.
func (l *locks) apply(tx *commit.Tx, events []lease.Event) error {
	l.ended = l.ended[:0]
	for i := range events {
		e := &events[i]
		switch e.Kind {
		case lease.HolderEnded:
			l.ended = append(l.ended, holdKey(e.Key, e.Holder.Token))
		case lease.HolderGranted:
			if err := l.granted(tx, e); err != nil {
				return err
			}
		case lease.HolderRenewed, lease.HolderRests:
			k := holdKey(e.Key, e.Holder.Token)
			if err := tx.Put(tx.Entry(k, k.Hash()), putHold(tx, &e.Holder)); err != nil {
				return err
			}
		case lease.WaitTimedOut:
			for _, w := range e.Waiters {
				l.timedOut(tx, e.Key, w)
			}
		case lease.WaitRefused:
			for _, w := range e.Waiters {
				tx.Answer(w.Data.(*Call), e.Err)
			}
		}
	}
	for _, k := range l.ended {
		tx.Remove(tx.Entry(k, k.Hash()))
	}
	l.lines = l.audit.lines(l.lines, events, tx.Now(), tx.Wall)
	return nil
}

// granted writes a new holder into a slot and answers the calls that waited. It reuses the
// slot of a holder that has ended, if there is one.
func (l *locks) granted(tx *commit.Tx, e *lease.Event) error {
	k, payload := holdKey(e.Key, e.Holder.Token), putHold(tx, &e.Holder)
	if last := len(l.ended) - 1; last >= 0 {
		old := l.ended[last]
		l.ended = l.ended[:last]
		tx.Replace(old, old.Hash(), k, k.Hash(), payload)
	} else if err := tx.Put(tx.Entry(k, k.Hash()), payload); err != nil {
		return err
	}
	for _, w := range e.Waiters {
		c := w.Data.(*Call)
		take := c.Op.(*LockTake)
		take.Holder, take.Passed = l.seen(tx, e.Key, e.Holder), tx.Now()
		tx.Answer(c, nil)
	}
	return nil
}

// timedOut answers a call whose wait is over.
func (l *locks) timedOut(tx *commit.Tx, k lease.Key, w *lease.Waiter) {
	tx.Answer(w.Data.(*Call), l.held(tx, k, fmt.Sprintf("lock %q is still held after the wait", k.ID)))
}

// held returns a refusal that names the oldest holder, if there is one.
func (l *locks) held(tx *commit.Tx, k lease.Key, reason string) error {
	h, _ := l.table.Oldest(tx.Now(), k)
	return heldError(reason, h, l.seen(tx, k, h))
}

// seen converts a holder to what users see.
func (l *locks) seen(tx *commit.Tx, k lease.Key, h lease.Holder) Holder {
	return holderOf(h, tx.Now(), tx.Wall(h.Expires), l.table.Waiters(k))
}

// locksMark is a savepoint.
type locksMark struct {
	table lease.Mark
	lines int
}

// Mark, Undo and Forget make the table a part of the transaction.
func (l *locks) Mark(*commit.Tx) int {
	m := locksMark{l.table.Mark(), len(l.lines)}
	if n := len(l.marks); n == 0 || l.marks[n-1] != m { // most calls of a batch change no lock
		l.marks = append(l.marks, m)
	}
	return len(l.marks) - 1
}

// Undo takes back everything since a mark.
func (l *locks) Undo(mark int) {
	l.table.Undo(l.marks[mark].table)
	l.lines = l.lines[:l.marks[mark].lines]
	l.marks = l.marks[:mark+1] // an older mark may be the same one
}

// Forget makes everything so far final.
func (l *locks) Forget() {
	l.table.Forget()
	l.marks = l.marks[:0]
}

// Next returns the instant at which the next hold or wait ends.
func (l *locks) Next() (at int64, ok bool) { return l.table.Next() }

// Expire ends one hold or wait that has expired.
func (l *locks) Expire(tx *commit.Tx) error {
	l.begin(tx)
	events, _ := l.table.Expire(tx.Now())
	return l.apply(tx, events)
}

// TimeOut answers the calls whose wait is over. It is used when the log has no room to end
// holds.
func (l *locks) TimeOut(tx *commit.Tx) {
	l.table.TimeOut(tx.Now(), func(k lease.Key, w *lease.Waiter) {
		if _, held := l.table.Oldest(tx.Now(), k); !held { // the lock is free, but cannot be granted
			tx.Answer(w.Data.(*Call), ErrFull)
			return
		}
		l.timedOut(tx, k, w)
	})
}

// Drain answers every call that waits.
func (l *locks) Drain(tx *commit.Tx, err error) {
	l.table.Drain(nil, func(_ lease.Key, w *lease.Waiter) { tx.Answer(w.Data.(*Call), err) })
}

// Committed writes the audit lines of the batch and publishes the counts of the table.
func (l *locks) Committed() {
	if len(l.lines) > 0 {
		if l.failed() == nil { // otherwise the outcome of the batch is unknown
			l.audit.write(l.lines)
		}
		l.lines = l.lines[:0]
	}
	now := l.table.Stats()
	if now == l.shown { // only the leader changes it, so it can be read without mu
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown = now
}

func (l *locks) stats() lease.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown
}
