package db

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"clouddragon/internal/lease"
	"clouddragon/internal/test/memdisk"
)

// The journal notes of a few locks with several holders.
type (
	// granted: the call was answered; this is the earliest end of the hold.
	granted struct {
		k           Key
		token, ends int64
	}
	// releasing: somebody is about to end the hold; token 0: by force all of them.
	releasing struct {
		k     Key
		token int64
	}
	// ended: and was answered.
	ended struct {
		k     Key
		token int64
	}
	// timeGoes: the clock is about to reach that time.
	timeGoes struct{ now int64 }
)

// holdsKnown is what the notes so far say about the holders.
type holdsKnown struct {
	now   int64
	holds map[int64]granted // by token: those that must hold
	over  map[int64]bool    // tokens whose holds must have ended
}

func (h *holdsKnown) enter(note any) {
	switch n := note.(type) {
	case granted:
		h.holds[n.token] = n
	case releasing:
		for token, g := range h.holds {
			if g.k == n.k && (n.token == 0 || n.token == token) {
				delete(h.holds, token)
			}
		}
	case ended:
		h.over[n.token] = true
	case timeGoes:
		h.now = n.now
	}
}

// check reads all locks and says what may not be.
func (h *holdsKnown) check(d *DB, locks []Key) error {
	now := timeOf(d)
	held := map[int64]bool{}
	for _, k := range locks {
		// Read where the limits are; LockHolders does not tell them.
		o := LockRead{Key: k}
		if err := d.Do(&o); err != nil && err != ErrNotFound {
			return err
		}
		all := d.locks.table.Holders(now, lease.Key(k), 1000)
		limit := lease.Shared
		for _, x := range all {
			limit = min(limit, x.Limit)
			held[x.Token] = true
			if h.over[x.Token] && !x.Resting {
				return fmt.Errorf("%v: token %d holds, which was given back", k, x.Token)
			}
		}
		if len(all) > int(limit) {
			return fmt.Errorf("%v has %d holders, of which one allows %d: %+v", k, len(all), limit, all)
		}
	}
	for token, g := range h.holds {
		if !held[token] && g.ends > max(now, h.now) {
			return fmt.Errorf("%v: token %d does not hold any more at %d, and was granted until %d", g.k, token, now, g.ends)
		}
	}
	return nil
}

// The power is cut at any moment while semaphores, readers and writers are in use. Afterwards
// no lock has more holders than each of them allows, no released hold is back, and every
// acknowledged hold is there.
func TestPowerCutNeverLeavesMoreHoldersThanAllowed(t *testing.T) {
	states := 0
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		fs, clock := memdisk.New(), newTestClock()
		d := mustOpen(t, tiny(fs, clock))
		locks := []Key{{"a", "semaphore"}, {"a", "readers"}, door}
		var calls []*taker
		tell := func() {
			for i := 0; i < len(calls); i++ {
				w := calls[i]
				select {
				case <-w.done:
				default:
					continue
				}
				calls = slices.Delete(calls, i, i+1)
				i--
				if w.call.Err == nil {
					fs.Mark(granted{w.Key, w.Holder.Token, w.asked + int64(w.Dur)})
				}
			}
		}
		type known struct {
			k     Key
			token int64
		}
		var mine []known
		for range 150 {
			k := locks[rnd.IntN(len(locks))]
			switch rnd.IntN(6) {
			case 0, 1, 2:
				r := LockRequest{Key: k, Dur: time.Duration(1+rnd.IntN(20)) * time.Second, Wait: time.Duration(rnd.IntN(2)) * time.Minute}
				switch rnd.IntN(4) {
				case 0:
					r.Limit = 1 + rnd.IntN(4)
				case 1, 2:
					r.Shared = true
				}
				if rnd.IntN(4) == 0 {
					r.Owner, r.Dur = fmt.Sprint("owner ", rnd.IntN(5)), 20*time.Second // no renewal makes it shorter
				}
				if rnd.IntN(8) == 0 {
					r.Least = 5 * time.Second
				}
				w := submit(t, d, r)
				w.asked = timeOf(d)
				calls = append(calls, w)
				if err := d.Do(&LockRead{Key: k}); err != nil && err != ErrNotFound {
					t.Fatal(err)
				}
			case 3, 4:
				all, err := d.LockHolders(k, 0)
				if err != nil {
					continue
				}
				mine = mine[:0]
				for _, h := range all.Holders {
					mine = append(mine, known{k, h.Token})
				}
				m := mine[rnd.IntN(len(mine))]
				u := UnlockRequest{Key: k, Token: m.token}
				if u.Force = rnd.IntN(8) == 0; u.Force {
					u.Token = 0
				}
				tell()
				fs.Mark(releasing{k, u.Token})
				if err := d.Unlock(u); err != nil {
					t.Fatal(err)
				}
				if !u.Force {
					fs.Mark(ended{k, u.Token})
				}
			default:
				by := rnd.Int64N(int64(4 * time.Second))
				fs.Mark(timeGoes{timeOf(d) + by})
				clock.pass(time.Duration(by))
				d.writer.Wake()
			}
			tell()
		}
		mustClose(t, d)
		tell()

		h := &holdsKnown{holds: map[int64]granted{}, over: map[int64]bool{}}
		entered := 0
		for cut := range fs.Cuts() {
			marks := cut.Marks()
			for ; entered < len(marks); entered++ {
				h.enter(marks[entered])
			}
			if rnd.IntN(12) > 0 {
				continue
			}
			for what, image := range map[string]*memdisk.FS{"nothing": cut.Nothing(), "everything": cut.Everything(), "some": cut.Random(rnd)} {
				states++
				after := newTestClock()
				after.step(time.Duration(max(0, h.now-epoch)))
				o := tiny(image, after)
				d, err := Open(o)
				if err != nil {
					t.Fatalf("seed %d, cut %d, %s unsynced survives: %v", seed, cut.At(), what, err)
				}
				err = h.check(d, locks)
				mustClose(t, d)
				if err != nil {
					t.Fatalf("seed %d, cut %d, %s unsynced survives: %v", seed, cut.At(), what, err)
				}
			}
		}
	}
	t.Logf("%d states", states)
}
