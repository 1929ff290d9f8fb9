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

// takeOverRaise is how far the versions and tokens of a server that takes over are above
// those that it has seen. With a standby that has every write the old server can have used
// one block of tokens more, and one that lags lacks seconds or minutes of writes: this is
// more than four hours of four million a second. 2^62 has room for 67 million times.
const takeOverRaise = 1 << 36

// TakeOver prepares the data directory of a server that followed another one and takes
// its place: versions and tokens are raised, and every lock that is held ends that much later.
// It can be repeated. On a full disk with no room for them locks end when they did.
func TakeOver(o Options, grace time.Duration) error {
	o.defaults()
	so := store.Options{FS: o.FS, Dir: o.Dir, Who: o.Who, Segment: o.Segment, LeastSegment: o.LeastSegment, Extent: o.Extent, Clock: o.Clock, Log: o.Log}
	s, r, err := store.Open(so)
	if err != nil {
		return err
	}
	// A writer without parts: nothing ends before it is prolonged.
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

// prolongAtOnce is how many holders one batch prolongs.
const prolongAtOnce = 64

// prolong makes every lock end so much later.
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

// heldSlot is a holder of a lock as its slot has it.
type heldSlot struct {
	key     slots.Key
	payload []byte
}

// prolongHolds is the operation that makes holders end later.
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
