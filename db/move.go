package db

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"clouddragon/db/commit"
	"clouddragon/internal/lease"
)

// The steps of moving an account to another server. The move command asks for each of them,
// and may repeat any of them after a crash or a lost answer.

// moves serializes changes of the marks and announces them.
type moves struct {
	mu sync.Mutex // held while a mark, or anything that it depends on, changes
	// now is closed at the next change of a mark.
	now atomic.Pointer[chan struct{}]
}

func (m *moves) init() {
	c := make(chan struct{})
	m.now.Store(&c)
}

// changed returns a channel that is closed when a mark changes.
func (m *moves) changed() <-chan struct{} { return *m.now.Load() }

func (m *moves) tell() {
	c := make(chan struct{})
	close(*m.now.Swap(&c))
}

// reloadMarks reads the marks again after another server's log has changed them.
func (d *DB) reloadMarks() error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	marks, err := loadMarks(d.store.Values)
	if err != nil {
		return err
	}
	h := &homes{moves: marks}
	if was := d.homes.Load(); was != nil {
		h.own = was.own
	}
	d.homes.Store(h)
	d.moved()
	return nil
}

// MoveChanged returns a channel that is closed when the mark of any account changes.
func (d *DB) MoveChanged() <-chan struct{} { return d.moves.changed() }

// MoveOf returns the mark of an account. Its State is empty if there is none.
func (d *DB) MoveOf(acc string) Move { return d.moveOf(acc) }

func (d *DB) moveOf(acc string) Move {
	if h := d.homes.Load(); h != nil {
		return h.moves[acc]
	}
	return Move{}
}

// setMark changes the mark of an account once the change is durable. With closes, calls on the
// account are refused even before that. Versions given out from then on are above raise. The
// caller holds moves.mu.
func (d *DB) setMark(acc string, m Move, closes bool, raise int64) error {
	was := d.homes.Load()
	next := was.with(acc, m)
	data, err := encodeMarks(next.moves)
	if err != nil {
		return err
	}
	if most := d.store.SegmentSize() / 4; int64(len(data)) > most && d.moveOf(acc).State == "" {
		return &ConflictError{fmt.Sprintf("the marks of accounts that have moved take %d bytes, and the limit is %d (a quarter of log.segment): no other account can move", len(data), most)}
	}
	if closes {
		d.homes.Store(next)
		d.moved()
		if err := d.Do(&turnAway{acc: acc}); err != nil {
			d.homes.Store(was)
			d.moved()
			return err
		}
	}
	err = d.Do(&markSet{raise: raise, ValueSet: ValueSet{
		Key: Key{marksAcc, marksID}, Data: data, Conditions: Conditions{Check: AnyVersion},
	}})
	switch {
	case err == nil:
		d.homes.Store(next)
	case closes && !errors.Is(err, ErrUnknown):
		d.homes.Store(was)
	}
	d.moved()
	return err
}

// moved tells those who wait that marks have changed.
func (d *DB) moved() {
	d.moves.tell()
	d.watchers.wakeEvery()
}

// turnAway is the operation that refuses the calls of an account that wait, because the account
// does not live here any more.
type turnAway struct {
	acc string

	d *DB
}

// Size is 0: a wait that ends needs no room.
func (o *turnAway) Size() int { return 0 }

// Frees is true.
func (o *turnAway) Frees() bool { return true }

func (*turnAway) account() string { return "" }

func (o *turnAway) prepare(d *DB) error {
	o.d = d
	return nil
}

// Decide empties the queues of the account's locks and rates.
func (o *turnAway) Decide(tx *commit.Tx) error {
	err := o.d.Admit(o.acc)
	if err == nil {
		return nil
	}
	o.d.locks.table.Drain(func(k lease.Key) bool { return k.Acc == o.acc }, func(_ lease.Key, w *lease.Waiter) {
		tx.Answer(w.Data.(*Call), err)
	})
	o.d.rates.turnAway(tx, func(k Key) bool { return k.Acc == o.acc }, err)
	return nil
}

// MoveStart is the result of Freeze.
type MoveStart struct {
	Move
	// The newest version and token here. Those of the target have to be above them.
	Version, Token int64
}

// Freeze begins the move of an account to another server. From now on calls on the account are
// refused, so that it can be copied unchanged. Its mutexes are freed, and waiting calls get a
// *MovingError. If the account has already moved to that server, Freeze returns that mark. If
// it is in another move, the error is a *ConflictError.
func (d *DB) Freeze(acc, to string) (MoveStart, error) {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	switch {
	case m.State == Moved && m.Peer == to:
		return MoveStart{Move: m}, nil
	case m.State == Frozen && m.Peer != to:
		return MoveStart{}, &ConflictError{fmt.Sprintf("account %q is being moved to %s: finish that or give it up", acc, m.Peer)}
	case m.State == Arriving, m.State == Copied:
		return MoveStart{}, &ConflictError{fmt.Sprintf("account %q is being moved to here from %s: finish that or give it up", acc, m.Peer)}
	case m.State != Frozen:
		if err := d.Admit(acc); err != nil {
			return MoveStart{}, err
		}
		before := m
		m = Move{State: Frozen, ID: rand.Text(), Peer: to}
		if before.State != "" {
			m.Before = &before
		}
		if err := d.setMark(acc, m, true, 0); err != nil {
			return MoveStart{}, err
		}
	}
	d.mutexes.free(acc)
	var all handed
	if err := d.Do(&all); err != nil {
		return MoveStart{}, err
	}
	return MoveStart{m, all.version, all.token}, nil
}

// Unfreeze abandons a move: the account lives here again. If it has already moved, the error is
// a *ConflictError.
func (d *DB) Unfreeze(acc string) error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	switch m := d.moveOf(acc); m.State {
	case Moved:
		return &ConflictError{fmt.Sprintf("account %q has moved to %s: that cannot be given up; repeat the move to finish it", acc, m.Peer)}
	case Frozen:
		return d.setMark(acc, m.before(), false, 0)
	}
	return nil
}

// before returns the mark that the account had before its move.
func (m Move) before() Move {
	if m.Before == nil {
		return Move{}
	}
	return *m.Before
}

// Depart records that the account was copied completely: from now on it lives on the other
// server. If the account is not frozen in that move, the error is a *ConflictError.
func (d *DB) Depart(acc, id string) error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	switch {
	case m.ID != id || m.State != Frozen && m.State != Moved:
		return &ConflictError{fmt.Sprintf("account %q is no longer in this move, which was given up or finished", acc)}
	case m.State == Moved:
		return nil
	}
	return d.setMark(acc, Move{State: Moved, ID: id, Peer: m.Peer}, true, 0)
}

// Forget removes the data of an account that has moved away in that move.
func (d *DB) Forget(ctx context.Context, acc, id string) error {
	m := d.moveOf(acc)
	if m.State != Moved || m.ID != id {
		return &ConflictError{fmt.Sprintf("account %q has not moved from here in this move: nothing of it is removed", acc)}
	}
	return d.removeAll(ctx, acc, m)
}

// Arrive prepares the target of a move. Versions and tokens given out here from now on are
// above those of the source, and the account starts out empty. If that move has already copied
// or opened the account, Arrive returns that mark. If the account lives here or is in another
// move, the error is a *ConflictError.
func (d *DB) Arrive(ctx context.Context, acc, id, from string, version, token int64) (Move, error) {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	next := Move{State: Arriving, ID: id, Peer: from, Attempt: rand.Text(), Before: m.Before}
	switch {
	case m.ID == id && (m.State == Copied || m.State == Here):
		return m, nil
	case m.ID == id && m.State == Arriving:
	case m.State == Arriving, m.State == Copied:
		return m, &ConflictError{fmt.Sprintf("account %q is being moved to here from %s: finish that or give it up", acc, m.Peer)}
	case m.State == Frozen:
		return m, &ConflictError{fmt.Sprintf("account %q is being moved from here to %s", acc, m.Peer)}
	case m.State == Here:
		return m, &ConflictError{fmt.Sprintf("account %q lives here already", acc)}
	case m.State == Moved:
		next.Before = &m
	}
	if version > math.MaxInt64/2 || token > math.MaxInt64/2 {
		return m, fmt.Errorf("version %d or token %d of the source is too large", version, token)
	}
	if err := d.raiseTokens(token); err != nil {
		return m, err
	}
	if m.State == "" {
		if err := d.arriveFirst(ctx, acc, next, version); err != nil {
			return m, err
		}
		d.mutexes.free(acc)
		return next, nil
	}
	if err := d.setMark(acc, next, true, version); err != nil {
		return m, err
	}
	return next, d.removeAll(ctx, acc, next)
}

// raiseTokens makes every token given out from now on larger than above.
func (d *DB) raiseTokens(above int64) error {
	if err := d.writer.Do(commit.ReserveTokens{Above: above}); err != nil {
		return err
	}
	d.tokens.Raise(above)
	return nil
}

// Import stores things of an arriving account.
func (d *DB) Import(acc, id, attempt string, recs []*MoveRecord) error {
	ops := make([]Operation, len(recs))
	for i, r := range recs {
		ops[i] = &moveIn{acc: acc, move: id, attempt: attempt, rec: r}
	}
	return d.doAll(ops)
}

// Arrived records that the account was copied here completely. Calls on it are still refused.
func (d *DB) Arrived(acc, id, attempt string) error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	switch {
	case m.ID == id && (m.State == Copied || m.State == Here):
		return nil
	case m.ID != id || m.State != Arriving || m.Attempt != attempt:
		return &ConflictError{fmt.Sprintf("account %q is not arriving in this attempt to move it: another attempt has replaced or ended it", acc)}
	}
	return d.setMark(acc, Move{State: Copied, ID: id, Peer: m.Peer, Before: m.Before}, true, 0)
}

// Open makes an account that was copied here live here. The source has to have departed
// before.
func (d *DB) Open(acc, id string) error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	switch {
	case m.ID != id || m.State != Copied && m.State != Here:
		return &ConflictError{fmt.Sprintf("account %q was not copied here in this move", acc)}
	case m.State == Here:
		return nil
	}
	return d.setMark(acc, Move{State: Here, ID: id, Peer: m.Peer}, false, 0)
}

// Abandon gives up a move of an account to this server and removes what was copied. The source
// has to have given up the same move before, so that it can never depart in it.
func (d *DB) Abandon(ctx context.Context, acc, id string) error {
	d.moves.mu.Lock()
	defer d.moves.mu.Unlock()
	m := d.moveOf(acc)
	switch {
	case m.State != Arriving && m.State != Copied:
		return nil
	case m.ID != id:
		return &ConflictError{fmt.Sprintf("account %q is being moved to here in another move, from %s", acc, m.Peer)}
	}
	// A command that is still copying is refused from here on.
	m.State, m.Attempt = Arriving, rand.Text()
	if err := d.setMark(acc, m, true, 0); err != nil {
		return err
	}
	if err := d.removeAll(ctx, acc, m); err != nil {
		return err
	}
	return d.setMark(acc, m.before(), false, 0)
}

// arriveFirst sets the mark of an account that has none. If the account already has data here,
// which must neither be lost nor mixed with the source's, the error is a *ConflictError.
func (d *DB) arriveFirst(ctx context.Context, acc string, next Move, version int64) error {
	was := d.homes.Load()
	d.homes.Store(was.with(acc, next)) // keeps others from storing anything meanwhile
	d.moved()
	err := d.eachOf(ctx, acc, func(kind uint8, id string) error {
		if kind == valueKind {
			val, ok, err := d.store.Values.Get(acc, id, d.store.Values.Hash(acc, id), -1)
			if err != nil || !ok || val.Expires != 0 && val.Expired(d.store.Clock.Now()) {
				return err
			}
		}
		return &ConflictError{fmt.Sprintf("account %q already has data here: nothing was moved", acc)}
	})
	if err == nil {
		err = d.setMark(acc, next, true, version)
	}
	if err != nil && !errors.Is(err, ErrUnknown) {
		d.homes.Store(was)
		d.moved()
	}
	return err
}
