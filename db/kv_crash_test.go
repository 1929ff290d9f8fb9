package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// valueNote is a note in a disk's journal: a key is about to get this value, ""
// for none, or got it.
type valueNote struct {
	key     Key
	data    string
	version int64 // of one that was answered
	done    bool
}

// valueLedger is what may be found of each key. Each belongs to one client, so at
// most one change of it is on its way.
type valueLedger struct {
	acked map[Key]string
	open  map[Key]string
	last  int64 // the newest version answered
}

func (l *valueLedger) enter(n valueNote) {
	if !n.done {
		l.open[n.key] = n.data
		return
	}
	delete(l.open, n.key)
	l.acked[n.key] = n.data
	l.last = max(l.last, n.version)
}

// check reads every key, and takes what it finds as what has to be found from then on.
func (l *valueLedger) check(d *DB) error {
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
		open, on := l.open[k]
		if got := string(v.Data); got != l.acked[k] && (!on || got != open) {
			return fmt.Errorf("%v is %.20q with version %d; acknowledged was %.20q, on its way %.20q (%v)", k, got, v.Version, l.acked[k], open, on)
		}
		l.acked[k] = string(v.Data)
		l.last = max(l.last, v.Version)
	}
	clear(l.open)
	return nil
}

// valueLife is a disk whose journal holds a life of values, with compaction and
// snapshots of the index going on all the time.
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
	o.FS = fs
	d := mustOpen(t, o)
	var stop atomic.Bool
	var clients, compactor sync.WaitGroup
	compactor.Go(func() {
		for !stop.Load() {
			if err := saveIndex(d); err != nil {
				t.Error(err)
				return
			}
			compactSome(d, 3)
		}
	})
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
				data := strings.Repeat(fmt.Sprint(c, i, " "), 1+rnd.IntN(200))
				fs.Mark(valueNote{key: k, data: data})
				v, err := d.Set(SetRequest{Key: k, Data: []byte(data), Check: AnyVersion})
				if err != nil {
					t.Error(err)
				}
				fs.Mark(valueNote{key: k, data: data, version: v, done: true})
			}
		})
	}
	clients.Wait()
	stop.Store(true)
	compactor.Wait()
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

// The power is cut at any moment while values are written, deleted, compacted and
// the index is saved. What was acknowledged is there, what was deleted is not, also
// once the index is built from the log, and after one more compaction.
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
		l := &valueLedger{acked: make(map[Key]string), open: make(map[Key]string)}
		entered := 0
		oneIn := max(1, 4*fs.Len()/want)
		for cut := range fs.Cuts() {
			for marks := cut.Marks(); entered < len(marks); entered++ {
				l.enter(marks[entered].(valueNote))
			}
			if rnd.IntN(oneIn) > 0 {
				continue
			}
			states++
			n, err := recoverValues(o, cut.Random(rnd), l)
			rebuilt += n
			if err != nil {
				t.Fatalf("seed %d, cut %d of %d: %v", seed, cut.At(), fs.Len(), err)
			}
		}
	}
	t.Logf("in %d of %d states the index was built from the log by itself", rebuilt, want)
}

// recoverValues opens a crash state and checks it again and again.
func recoverValues(o Options, fs *memdisk.FS, l *valueLedger) (rebuilt int, err error) {
	now := &valueLedger{acked: make(map[Key]string), open: make(map[Key]string), last: l.last}
	for k, v := range l.acked {
		now.acked[k] = v
	}
	for k, v := range l.open {
		now.open[k] = v
	}
	for _, what := range []string{"recovered", "restarted", "rebuilt from the log"} {
		o.FS = fs
		d, err := Open(o)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		if what == "recovered" && d.snapshot.none != nil {
			rebuilt++
		}
		err = now.check(d)
		if err == nil {
			err = d.checkpoint()
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
