package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// damaged is a data directory that is damaged in one place at a time.
type damaged struct {
	*testing.T
	o       Options
	clean   *memdisk.FS
	closed  bool
	l       *ledger
	refused int
	served  int
}

// A byte, a sector or a file is damaged. Then either the start is refused with an error that
// names the file, or the server starts and everything that was acknowledged is right.
func TestDamageIsRefusedByNameOrHarmless(t *testing.T) {
	t.Run("after a stop", func(t *testing.T) { damagedDirectory(t, true, true).all() })
	t.Run("after a crash", func(t *testing.T) { damagedDirectory(t, false, true).all() })
	// Without a durability mark after it, a damaged last batch looks like a torn tail.
	t.Run("after a crash in mid-traffic", func(t *testing.T) { damagedDirectory(t, false, false).all() })
}

// damagedDirectory returns a directory with data of each kind. Its process was stopped or
// killed, with or without a durability mark after the last batch.
func damagedDirectory(t *testing.T, closed, marked bool) *damaged {
	fs, clock := memdisk.New(), newTestClock()
	d := &damaged{T: t, o: tiny(fs, clock), closed: closed, l: newLedger()}
	d.o.Segment = 8 << 10
	db := mustOpen(t, d.o)
	p := newPlayer(db, fs, clock)
	must := func(err error) {
		t.Helper()
		wantDone(t, "a write", err)
	}
	for i := range 30 {
		_, err := p.add(kindSequence+uint8(i%2), Key{"a", strings.Repeat("x", i*8%250+1)}, int64(i+1))
		must(err)
	}
	for i := range 5 {
		_, err := p.set(Key{"v", fmt.Sprint(i)}, int64(300*i), 0)
		must(err)
	}
	_, err := p.lock(context.Background(), LockRequest{Key: Key{"l", "1"}, Owner: "me", Dur: time.Hour})
	must(err)
	must(p.reset(kindSequence, Key{"a", "x"}))
	must(p.remove(Key{"v", "0"}))
	// Without a durability mark, the last write may look like one that was in flight.
	last := p.ask(asked{verb: verbAdd, kind: kindCounter, key: Key{"a", "last"}, n: 1})
	must(addN(db, "last", 1))
	if marked {
		p.note(last, 1, nil)
	}
	if marked && !closed {
		must(db.writer.Do(commit.ReserveTokens{})) // any batch serves as a durability mark
	}
	d.clean = fs.Clone() // a kill
	mustClose(t, db)
	if closed {
		d.clean = fs.Clone()
	}
	for _, op := range fs.Journal() {
		if op.Kind == memdisk.Note {
			d.l.enter(op.Note)
		}
	}
	return d
}

// all damages each file in every way. It flips some of the bits and tries some of the lengths,
// different ones in each run.
func (d *damaged) all() {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	defer func() {
		if d.Failed() {
			d.Logf("again with -seed %d", seed)
		}
	}()
	rnd := rand.New(rand.NewPCG(seed, 0))
	every := 1
	if testing.Short() || underRace {
		every = 10
	}
	for _, name := range d.clean.Files() {
		b, err := d.clean.ReadFile(name)
		wantDone(d.T, name, err)
		for at := range 8 * len(b) {
			i, bit := at/8, at%8
			share := 64 * every
			if b[i] == 0 || path.Base(name) == "index" { // a cache, and large
				share = 1600 * every
			}
			if *damageShare > 0 {
				share = *damageShare
			}
			if rnd.IntN(share) > 0 {
				continue
			}
			fs := d.try(name, fmt.Sprintf("bit %d of byte %d flipped", bit, i), func(b []byte) []byte {
				b[i] ^= 1 << bit
				return b
			})
			// After a clean stop the last batch does not look like a torn tail either.
			if d.closed && b[i] != 0 && strings.HasSuffix(name, ".seg") && d.verifies(fs) == nil {
				d.Errorf("%s, bit %d of byte %d: verify does not see it", name, bit, i)
			}
		}
		for size := range b {
			share := 512
			if *damageShare > 0 {
				share = *damageShare
			}
			if rnd.IntN(share) == 0 {
				d.try(name, fmt.Sprintf("cut to %d bytes", size), func(b []byte) []byte { return b[:size] })
			}
		}
		last := bytes.LastIndex(b, []byte("\xcdLOG")) // the header of the last batch, 48 bytes
		for at := 0; at+512 <= len(b); at += 512 {
			if last >= 0 && last < at+512 && last+48 > at && !d.closed {
				continue // the evidence that there were batches may be gone together with them
			}
			d.try(name, fmt.Sprintf("sector at %d zeroed", at), func(b []byte) []byte {
				clear(b[at : at+512])
				return b
			})
		}
		d.try(name, "removed", nil)
	}
	d.Logf("%d refused, %d served", d.refused, d.served)
	if d.refused == 0 || d.served == 0 {
		d.Error("both have to happen")
	}
}

func (d *damaged) verifies(fs *memdisk.FS) error {
	o := d.o
	o.FS = fs
	return verifies(fs, o)
}

// try damages a file, and returns the damaged disk.
func (d *damaged) try(name, what string, change func([]byte) []byte) *memdisk.FS {
	fs := d.clean.Clone()
	if d.Failed() {
		return fs
	}
	if change == nil {
		wantDone(d.T, what, fs.Remove(name))
	} else {
		b, err := fs.ReadFile(name)
		wantDone(d.T, what, err)
		bad := change(bytes.Clone(b))
		wantDone(d.T, what, fs.WriteFile(name, bad))
		// The start does without the file and only logs that it is damaged.
		if path.Base(name) == "index" && !bytes.Equal(b, bad) && d.verifies(fs) == nil {
			d.Errorf("%s, %s: verify does not see it", name, what)
		}
	}
	spoiled := fs.Clone()
	o := d.o
	o.FS = fs
	db, err := Open(o)
	if err != nil {
		d.refused++
		if !strings.Contains(err.Error(), path.Base(name)) {
			d.Errorf("%s, %s: the error does not name it: %v", name, what, err)
		}
		if x := (*disk.Damage)(nil); !errors.As(err, &x) || !strings.HasSuffix(name, x.File) || !strings.Contains(err.Error(), "clouddragon verify") {
			d.Errorf("%s, %s: the error is no *disk.Damage of that file with advice: %v", name, what, err)
		}
		if d.verifies(spoiled) == nil && path.Base(name) != store.CheckpointName {
			d.Errorf("%s, %s: verify finds nothing, but a start says: %v", name, what, err)
		}
	} else {
		d.served++
		_, err := d.l.check(db)
		if err != nil && !(errors.Is(err, ErrDamaged) && strings.HasSuffix(name, ".seg")) {
			d.Errorf("%s, %s: %v", name, what, err)
		}
		if err := db.Close(); err != nil {
			d.Errorf("%s, %s: close: %v", name, what, err)
		}
	}
	if n := fs.OpenHandles(); n > 0 {
		d.Errorf("%s, %s: %d handles stay open", name, what, n)
	}
	return spoiled
}
