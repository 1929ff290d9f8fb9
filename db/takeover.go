package db

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/slots"
)

// takeOverRaise is by how much the versions and tokens of a server that takes over are raised
// above those that it has seen. If the standby has every write, the old server can have used
// one more block of tokens; if it lags, it lacks seconds or minutes of writes. This is
// enough for more than four hours at four million a second, and 2^62 has room for 67 million
// times.
const takeOverRaise = 1 << 36

// TakeOver prepares the data directory of a server that replaces the one that it followed: it
// raises versions and tokens, and extends every held lock by grace. It can be repeated. If
// the disk is full and has no room for that, locks are not extended.
func TakeOver(o Options, grace time.Duration) error {
	o.defaults()
	so := store.Options{FS: o.FS, Dir: o.Dir, Who: o.Who, Segment: o.Segment, LeastSegment: o.LeastSegment, Extent: o.Extent, Clock: o.Clock, Log: o.Log}
	s, r, err := store.Open(so)
	if err != nil {
		return err
	}
	// A writer without parts: no lock expires before it is extended.
	w := s.NewWriter(r, commit.Options{QuietAfter: o.QuietAfter})
	s.Start()
	w.Start()
	err = prolong(s, w, grace)
	if errors.Is(err, ErrFull) {
		o.Log.Warn("the disk is full: locks are not held longer after the promotion", "err", err)
		err = nil
	}
	w.Close()
	if err = errors.Join(err, s.Close(r.Tokens.Stop())); err != nil {
		return err
	}
	return store.Raise(so, takeOverRaise)
}

// prolongAtOnce is how many holds one batch extends.
const prolongAtOnce = 64

// prolong extends every lock by grace.
func prolong(s *store.Store, w *commit.Writer, grace time.Duration) error {
	var all []prolongHolds
	err := s.Tables.Each(kindLock, func(k slots.Key, payload []byte) error {
		if len(all) == 0 || len(all[len(all)-1].holds) == prolongAtOnce {
			all = append(all, prolongHolds{grace: int64(grace)})
		}
		op := &all[len(all)-1]
		op.holds = append(op.holds, heldSlot{k, bytes.Clone(payload)})
		return nil
	})
	for i := range all {
		if err == nil {
			err = w.Do(&all[i])
		}
	}
	if err != nil {
		err = fmt.Errorf("hold locks longer: %w", err)
	}
	return err
}

// heldSlot is a holder of a lock as stored in a slot.
type heldSlot struct {
	key     slots.Key
	payload []byte
}

// prolongHolds is the operation that extends holds.
type prolongHolds struct {
	holds []heldSlot
	grace int64 // ns
}

// Size returns the most bytes that the images of the slots take.
func (p *prolongHolds) Size() int { return len(p.holds) * commit.SlotChange }

// Frees is true although it frees nothing: a promotion may use what is held back.
func (p *prolongHolds) Frees() bool { return true }

// Decide adds the grace to the end of each hold, and to that of its rest.
func (p *prolongHolds) Decide(tx *commit.Tx) error {
	tx.Date()
	for _, h := range p.holds {
		b := tx.Bytes(len(h.payload))
		copy(b, h.payload)
		for _, at := range []int{0, 16} {
			if end := int64(le.Uint64(b[at:])); end > 0 {
				le.PutUint64(b[at:], uint64(min(end, math.MaxInt64-p.grace)+p.grace))
			}
		}
		if err := tx.Put(tx.Entry(h.key, h.key.Hash()), b); err != nil {
			return err
		}
	}
	return nil
}
