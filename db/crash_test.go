package db

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

var (
	crashStates = flag.Int("states", 0, "how many crash states to try at least; 0: as many as every test run does")
	crashSeed   = flag.Uint64("seed", 0, "seed of the crash tests; 0: a new one")
	damageShare = flag.Int("damage", 0, "of so many damages and failed calls one is tried, 1: all; 0: as every test run does")
)

// The power is cut at any moment of a long and busy life, the disk keeps any part of the data
// that was not synced, and the data directory is opened. It has everything that was
// acknowledged, and nothing else except calls that were in flight, and it works from there on.
// Recovery itself is cut off in the same way, up to three times in a row.
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	crash(t, &crasher{t: t, want: 10_000})
}

// crash tries as many states as the flags ask for, or as many as c wants.
func crash(t *testing.T, c *crasher) {
	c.seed = *crashSeed
	if testing.Short() || underRace {
		c.want /= 10
	}
	if *crashStates > 0 {
		c.want = *crashStates
	}
	if c.seed == 0 {
		c.seed = uint64(time.Now().UnixNano())
	}
	c.rnd = rand.New(rand.NewPCG(c.seed, 0))
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // thousands of small disks come and go
	began := time.Now()
	tenth := 1
	for life := uint64(0); c.states < c.want && !t.Failed(); life++ {
		c.life(c.seed + life)
		if c.states < c.want && c.states >= tenth*c.want/10 {
			t.Logf("%d states after %.0f s, seed %d", c.states, time.Since(began).Seconds(), c.seed)
			tenth = c.states*10/c.want + 1
		}
	}
	if t.Failed() {
		return
	}
	took := time.Since(began)
	t.Logf("%d states, %d of them of a recovery and %d of a recovery of that, 0 acknowledged writes lost; %d backups compared; %.0f s, %.0f a second, seed %d",
		c.states, c.deep[1], c.deep[2], c.copies, took.Seconds(), float64(c.states)/took.Seconds(), c.seed)
}

// maxDepth is the largest number of power cuts in a row.
const maxDepth = 3

// crasher builds crash states and checks them.
type crasher struct {
	t            *testing.T
	want, states int
	deep         [maxDepth]int // number of states by the number of earlier power cuts
	backups      bool          // the first power cut comes while a backup is under way
	copies       int           // backups that were compared with the ledger
	seed         uint64
	rnd          *rand.Rand
	o            Options
}

// life cuts the power after every entry of one journal, or after a share of them if few states
// are wanted.
func (c *crasher) life(seed uint64) {
	c.o = tiny(nil, newTestClock())
	c.o.Segment = []int64{8 << 10, 16 << 10, 64 << 10}[c.rnd.IntN(3)]
	c.o.CheckpointEvery = []int64{4 << 10, 16 << 10, 64 << 10}[c.rnd.IntN(3)]
	c.o.QuietAfter = []time.Duration{time.Microsecond, 100 * time.Microsecond, time.Hour}[c.rnd.IntN(3)]
	fs, err := loaded(seed, c.o, 2+c.rnd.IntN(8), 20, c.backups)
	if err != nil {
		c.t.Fatalf("seed %d: %v", seed, err)
	}
	var notes []any
	for _, op := range fs.Journal() {
		if op.Kind == memdisk.Note {
			notes = append(notes, op.Note)
		}
	}
	if err := checkAnswers(notes); err != nil {
		c.t.Fatalf("seed %d: %v", seed, err)
	}
	n, err := checkCopies(notes, c.o)
	if err != nil {
		c.t.Fatalf("seed %d: %v", seed, err)
	}
	c.copies += n
	c.cuts(fs, newLedger(), 0, max(1, 20_000/c.want))
}

// cuts builds states of one in so many cuts of a journal, and checks them. l is the ledger from
// before the journal.
func (c *crasher) cuts(fs *memdisk.FS, l *ledger, depth, oneIn int) {
	journal := fs.Journal()
	copying := underWay(journal)
	entered := 0
	for cut := range fs.Cuts() {
		// Of several notes in a row only the last matters: it includes the others.
		at := cut.At()
		if at < len(journal) && journal[at].Kind == memdisk.Note || c.rnd.IntN(oneIn) > 0 ||
			c.backups && depth == 0 && copying[at] == 0 {
			continue
		}
		marks := cut.Marks()
		for ; entered < len(marks); entered++ {
			l.enter(marks[entered])
		}
		c.state(cut.Nothing(), l, depth, journal[:at], "nothing unsynced survives")
		if cut.Unsynced() {
			c.state(cut.Everything(), l, depth, journal[:at], "everything survives")
			c.state(cut.Random(c.rnd), l, depth, journal[:at], "some survives")
		}
		if c.t.Failed() {
			return
		}
	}
}

// state checks one crash state, and sometimes crashes it again while it recovers
// and goes on.
func (c *crasher) state(fs *memdisk.FS, l *ledger, depth int, journal []memdisk.Op, what string) {
	c.states++
	c.deep[depth]++
	image := fs.Clone()
	if err := c.recovers(fs, l); err != nil {
		c.t.Errorf("power cut %d, %s: %v\nthe disk is in %s, the last calls were:\n%s\nagain with -states %d -seed %d (goroutines may run in another order)",
			depth+1, what, err, c.save(image), tail(journal), c.want, c.seed)
		return
	}
	if depth+1 < maxDepth && c.rnd.IntN(100) == 0 {
		c.cuts(fs, l.clone(), depth+1, 4)
	}
}

// recovers opens a crash state, checks it against the ledger, and goes on.
func (c *crasher) recovers(fs *memdisk.FS, l *ledger) error {
	clock := newTestClock()
	clock.step(time.Duration(l.wall - epoch))
	clock.restart()
	l = l.clone()
	if c.rnd.IntN(2) == 0 {
		by := someStep(c.rnd)
		clock.step(by)
		l.enter(setWhileDown{int64(by)})
		fs.Mark(setWhileDown{int64(by)})
	}
	o := c.o
	o.FS, o.Clock = fs, clock.read
	if c.rnd.IntN(4) == 0 {
		if err := verifies(fs, o); err != nil {
			return err
		}
	}
	d, err := Open(o)
	if err != nil {
		return err
	}
	sure, err := l.check(d)
	if err == nil {
		fs.Mark(pinned{sure})
		err = c.goesOn(newPlayer(d, fs, clock), sure.clone())
	}
	if closed := d.Close(); err == nil {
		err = closed
	}
	if n := fs.OpenHandles(); err == nil && n > 0 {
		err = fmt.Errorf("%d handles are open after Close", n)
	}
	if err == nil && c.rnd.IntN(4) == 0 {
		err = verifies(fs, o)
	}
	return err
}

// verifies checks that Verify finds no damage and changes nothing.
func verifies(fs *memdisk.FS, o Options) error {
	if !slices.Contains(fs.Files(), path.Join(o.Dir, store.CheckpointName)) {
		return nil
	}
	before := fs.Len()
	var all []*disk.Damage
	_, err := store.VerifyWith(store.Options{FS: fs, Dir: o.Dir, Segment: o.Segment, Extent: o.Extent}, func(d *disk.Damage) { all = append(all, d) })
	if err != nil || len(all) > 0 {
		return fmt.Errorf("verify: %v, %v", all, err)
	}
	if fs.Len() > before {
		return fmt.Errorf("verify changed the disk: %v", fs.Journal()[before:])
	}
	return nil
}

// goesOn checks that a recovered database still does operations of each kind.
func (c *crasher) goesOn(p *player, l *ledger) error {
	from := len(p.fs.Journal())
	for k, e := range l.things {
		key := Key{k.Acc, k.ID}
		switch {
		case k.Acc == "hot":
			v, err := p.add(k.Kind, key, 3)
			if err != nil || v != e.sum+3 {
				return fmt.Errorf("%v: 3 added to %d is %d, %v", k, e.sum, v, err)
			}
		case k.Kind == kindLock && e.live:
			if err := p.unlock(key, e.token); err != nil {
				return err
			}
		}
	}
	token, err := p.lock(context.Background(), LockRequest{Key: Key{"lock", "after"}, Owner: "next", Dur: time.Hour})
	if err != nil || token <= l.token {
		return fmt.Errorf("the next token is %d, %v; the last was %d", token, err, l.token)
	}
	fresh := Key{"after", fmt.Sprint(c.states)}
	if v, err := p.add(kindCounter, fresh, -2); err != nil || v != -2 {
		return fmt.Errorf("a new counter is %d, %v", v, err)
	}
	if err := p.reset(kindCounter, fresh); err != nil {
		return err
	}
	if v, err := p.set(Key{"value", "after"}, int64(c.states), 0); err != nil || v <= l.newest {
		return fmt.Errorf("the next version is %d, %v; the last was %d", v, err, l.newest)
	}
	for _, op := range p.fs.Journal()[from:] {
		if op.Kind == memdisk.Note {
			l.enter(op.Note)
		}
	}
	_, err = l.check(p.d)
	return err
}

// save writes the files of a disk into a directory that is kept after the test.
func (c *crasher) save(fs *memdisk.FS) string {
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return err.Error()
	}
	for _, name := range fs.Files() {
		to := filepath.Join(dir, name)
		b, err := fs.ReadFile(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			return err.Error()
		}
	}
	return dir
}

// tail prints the end of a journal.
func tail(journal []memdisk.Op) (s string) {
	for _, op := range journal[max(0, len(journal)-20):] {
		s += "  " + op.String() + "\n"
	}
	return s
}
