package db

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// valueNote is a note in a disk's journal: a key is about to get this value, or has got it. ""
// stands for no value.
type valueNote struct {
	key     Key
	data    string
	version int64 // if the call was answered
	done    bool
	ttl     int64
	// The value expires between these, in database time; 0: never. Before the call was
	// answered, only the first is known.
	lo, hi int64
}

// over reports whether the value may have expired by now.
func (n valueNote) over(now int64) bool { return n.lo != 0 && n.lo <= now }

// valueLedger is what may be found under each key. Each key belongs to one client, so at most
// one change of it is in flight.
type valueLedger struct {
	acked map[Key]valueNote
	open  map[Key]valueNote
	last  int64 // the newest version answered
	given int64 // when the last acknowledged value with a ttl was asked for
	now   int64 // the latest that database time may be, not counting steps
	wall  int64 // the same of the wall clock
}

func newValueLedger() *valueLedger {
	return &valueLedger{acked: make(map[Key]valueNote), open: make(map[Key]valueNote), now: epoch, wall: epoch}
}

func (l *valueLedger) enter(note any) {
	switch n := note.(type) {
	case passed:
		l.now, l.wall = l.now+n.t, l.wall+n.t
	case stepping:
		l.wall += n.by
	case valueNote:
		if !n.done {
			l.open[n.key] = n
			return
		}
		delete(l.open, n.key)
		l.acked[n.key] = n
		l.last = max(l.last, n.version)
		if n.ttl != 0 {
			l.given = max(l.given, n.lo-n.ttl)
		}
	}
}

// check reads every key, and takes what it finds as what has to be found from then on.
func (l *valueLedger) check(d *DB) error {
	at := timeOf(d)
	if at < l.given {
		return fmt.Errorf("the time is %d, though a value was given its ttl at %d", at, l.given)
	}
	keys := make(map[Key]bool)
	for k := range l.acked {
		keys[k] = true
	}
	for k := range l.open {
		keys[k] = true
	}
	for k := range keys {
		v, err := d.Get(k)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		acked := l.acked[k]
		open, on := l.open[k]
		latest := max(at, l.now)
		switch got := string(v.Data); {
		case got == acked.data && (got == "" || acked.hi == 0 || acked.hi > at):
		case got == "" && (acked.over(latest) || on && open.over(latest)):
			acked = valueNote{}
		case on && got == open.data:
			acked = open
			if open.ttl != 0 {
				acked.hi = latest + open.ttl
			}
		default:
			return fmt.Errorf("at %d %v is %.20q with version %d; acknowledged was %+.20v, on its way %+.20v (%v)", at, k, got, v.Version, acked, open, on)
		}
		l.acked[k] = acked
		l.last = max(l.last, v.Version)
	}
	clear(l.open)
	l.given, l.now = at, at
	return nil
}

// valueLife returns a disk whose journal holds a life of values, with compaction and index
// snapshots running all the time.
func valueLife(t *testing.T, o Options, seed uint64) *memdisk.FS {
	fs := memdisk.New()
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync {
			for range 20 {
				runtime.Gosched()
			}
		}
		return nil
	})
	clock := newTestClock()
	o.FS, o.Clock = fs, clock.read
	d := mustOpen(t, o)
	end := compactBeside(t, d, 3)
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)))
			for i := range 60 {
				k := Key{fmt.Sprint(c), fmt.Sprint(rnd.IntN(15))}
				if rnd.IntN(3) == 0 {
					fs.Mark(valueNote{key: k})
					if err := d.DeleteValue(k, AnyVersion); err != nil {
						t.Error(err)
					}
					fs.Mark(valueNote{key: k, done: true})
					continue
				}
				if c == 0 && rnd.IntN(4) == 0 {
					fs.Mark(passed{int64(5 * time.Second)})
					clock.pass(5 * time.Second)
				}
				if c == 0 && rnd.IntN(10) == 0 {
					by := someStep(rnd)
					fs.Mark(stepping{int64(by)})
					clock.step(by)
				}
				data := strings.Repeat(fmt.Sprint(c, i, " "), 1+rnd.IntN(200))
				n := valueNote{key: k, data: data, ttl: int64(rnd.IntN(2)*(1+rnd.IntN(20))) * int64(time.Second)}
				if n.ttl != 0 {
					n.lo = timeOf(d) + n.ttl
				}
				fs.Mark(n)
				v, err := d.Set(SetRequest{Key: k, Data: []byte(data), TTL: time.Duration(n.ttl), Check: AnyVersion})
				if err != nil {
					t.Error(err)
				}
				n.version, n.done = v, true
				if n.ttl != 0 {
					n.hi = timeOf(d) + n.ttl
				}
				fs.Mark(n)
			}
		})
	}
	clients.Wait()
	end()
	if err := saveIndex(d); err != nil {
		t.Error(err)
	}
	compactSome(d, 2)
	if d.Stats().Compaction.Freed == 0 {
		t.Error("nothing was freed")
	}
	mustClose(t, d)
	return fs
}

// The power is cut at any moment while values are written, deleted, compacted and expire, and
// while the index is saved. Acknowledged values are there and deleted ones are not, even with
// an index rebuilt from the log, and after one more compaction.
func TestPowerCutWhileCompactingLosesAndRevivesNothing(t *testing.T) {
	want := 400
	if *crashStates > 0 {
		want = *crashStates
	}
	if testing.Short() || underRace {
		want /= 4
	}
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	o := tinyKV(nil, nil)
	o.CheckpointEvery = 8 << 10
	rebuilt := 0
	for states := 0; states < want && !t.Failed(); seed++ {
		fs := valueLife(t, o, seed)
		l := newValueLedger()
		entered := 0
		oneIn := max(1, 4*fs.Len()/want)
		for cut := range fs.Cuts() {
			for marks := cut.Marks(); entered < len(marks); entered++ {
				l.enter(marks[entered])
			}
			if rnd.IntN(oneIn) > 0 {
				continue
			}
			states++
			n, err := recoverValues(o, cut.Random(rnd), l, rnd)
			rebuilt += n
			if err != nil {
				t.Fatalf("seed %d, cut %d of %d: %v", seed, cut.At(), fs.Len(), err)
			}
		}
	}
	t.Logf("in %d of %d states the index was built from the log by itself", rebuilt, want)
}

// recoverValues opens a crash state and checks it again and again.
func recoverValues(o Options, fs *memdisk.FS, l *valueLedger, rnd *rand.Rand) (rebuilt int, err error) {
	copied := *l
	now := &copied
	now.acked, now.open = maps.Clone(l.acked), maps.Clone(l.open)
	clock := newTestClock()
	clock.step(time.Duration(l.wall - epoch))
	o.Clock = clock.read
	for _, what := range []string{"recovered", "restarted", "rebuilt from the log"} {
		clock.restart()
		if rnd.IntN(2) == 0 {
			clock.step(someStep(rnd))
		}
		o.FS = fs
		d, err := Open(o)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		if what == "recovered" && noSnapshot(d) != nil {
			rebuilt++
		}
		err = now.check(d)
		if err == nil {
			err = d.store.Checkpoint()
		}
		if err == nil {
			compactSome(d, 2)
			err = now.check(d)
		}
		if err == nil {
			var v int64
			if v, err = d.Set(SetRequest{Key: Key{"new", "k"}, Check: AnyVersion}); err == nil && v <= now.last {
				err = fmt.Errorf("version %d after %d", v, now.last)
			}
			now.last = v
		}
		if err = errors.Join(err, d.Close()); err != nil {
			return rebuilt, fmt.Errorf("%s: %w", what, err)
		}
		if what == "restarted" {
			dropIndex(fs)
		}
	}
	return rebuilt, nil
}
