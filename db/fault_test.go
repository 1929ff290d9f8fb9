package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// A fault is a way in which a call of the disk fails in a test.
type fault struct {
	name string
	err  error
	stay bool // all calls after it fail too
	each int  // of so many calls one is tried
}

var faults = []fault{
	{"EIO once", syscall.EIO, false, 1},
	{"EIO from then on", syscall.EIO, true, 3},
	{"ENOSPC once", syscall.ENOSPC, false, 3},
	{"ENOSPC from then on", syscall.ENOSPC, true, 3},
	{"short write", memdisk.Short(700, syscall.EIO), false, 3},
	{"short write on a full disk", memdisk.Short(700, syscall.ENOSPC), false, 5},
	{"short writes on a full disk from then on", memdisk.Short(100, syscall.ENOSPC), true, 7},
}

// may reports whether a call can fail in that way.
func (f fault) may(op memdisk.Op) bool {
	switch op.Kind {
	case memdisk.Open, memdisk.ReadDir, memdisk.Read, memdisk.Size, memdisk.Close, memdisk.Map, memdisk.Unmap, memdisk.Remove:
		return !disk.IsFull(f.err)
	}
	return true
}

// Each call of the disk in a short life of a database fails once. No answer is wrong, every
// error is a documented one, and no file stays open. Nothing that was acknowledged is lost by
// a restart, by a power cut, or by a power cut during the restart.
func TestEveryDiskCallFailsOnce(t *testing.T) {
	t.Parallel()
	c := &crasher{t: t, rnd: rand.New(rand.NewPCG(1, 2)), o: tiny(nil, newTestClock())}
	c.o.Segment, c.o.CheckpointEvery = 8<<10, 4<<10
	f := &faulty{crasher: c, kinds: make(map[memdisk.Kind]int)}
	var made atomic.Int64
	f.live(memdisk.New(), func(memdisk.Op) error {
		made.Add(1)
		return nil
	})
	calls := int(made.Load())
	if f.failed || f.acked == 0 {
		t.Fatalf("without a fault: failed %t, %d writes were acknowledged", f.failed, f.acked)
	}
	runs := 0
	for i, how := range faults {
		// make crash takes them all.
		switch {
		case *damageShare > 0:
			how.each = min(how.each, *damageShare)
		default:
			how.each *= 10
		}
		for n := 1 + i%how.each; n <= calls && !t.Failed(); n += how.each {
			f.failCall(n, how)
			runs++
		}
	}
	t.Logf("%d runs, %d calls of the disk in each, %d states; failed were %v", runs, calls, c.states, f.kinds)
	for _, kind := range []memdisk.Kind{memdisk.Create, memdisk.Write, memdisk.Allocate, memdisk.Sync, memdisk.Map, memdisk.Store, memdisk.SyncMap,
		memdisk.Rename, memdisk.Remove, memdisk.SyncDir} {
		if f.kinds[kind] == 0 && *damageShare == 1 {
			t.Errorf("no call of %v failed", kind)
		}
	}
}

// faulty lives short lives on disks with a fault.
type faulty struct {
	*crasher
	kinds  map[memdisk.Kind]int // calls that failed
	acked  int                  // writes acknowledged in the last life
	failed bool                 // writes were stopped in it
}

// failCall makes the n-th call of a life fail, and checks the state that results.
func (f *faulty) failCall(n int, how fault) {
	fs := memdisk.New()
	var hit memdisk.Op
	var fired atomic.Bool
	err := f.live(fs, func(op memdisk.Op) error {
		switch {
		case !how.may(op):
			return nil
		case op.N >= n && fired.CompareAndSwap(false, true):
			hit = op
			return how.err
		case how.stay && op.N > n:
			return how.err
		}
		return nil
	})
	fail := func(format string, args ...any) {
		f.t.Errorf("%s at %v: %s", how.name, hit, fmt.Sprintf(format, args...))
	}
	if fired.Load() {
		f.kinds[hit.Kind]++
	}
	if err != nil {
		fail("%v", err)
	}
	if open := fs.OpenHandles(); open > 0 {
		fail("%d handles are open after Close", open)
	}
	f.after(fs, hit, fail)
}

// after restarts the database after a fault, cuts the power instead, or does both.
func (f *faulty) after(fs *memdisk.FS, hit memdisk.Op, fail func(string, ...any)) {
	l := newLedger()
	for _, op := range fs.Journal() {
		if op.Kind == memdisk.Note {
			l.enter(op.Note)
		}
	}
	// The process is started anew on the same page cache.
	restarted := fs.Reopen()
	from := restarted.Len()
	if err := f.recovers(restarted, l); err != nil {
		fail("after a restart: %v", err)
		return
	}
	// The power is cut instead, or while it starts.
	end := fs.Cut(from)
	f.check(end.Nothing(), l, fail, "after a power cut")
	during := l.clone()
	for cut := range restarted.Cuts() {
		if cut.At() < from {
			continue
		}
		if op := cut.Last(); op.Kind == memdisk.Note && cut.At() > from {
			during.enter(op.Note)
		}
		// A failed sync of CHECKPOINT is the worst case: reads show data that the disk does
		// not have.
		if strings.HasSuffix(hit.Name, store.CheckpointName) && hit.Kind == memdisk.Sync {
			f.check(cut.Nothing(), during, fail, fmt.Sprintf("after a power cut during the restart, at %v", cut.Last()))
		} else if f.rnd.IntN(60) == 0 {
			f.check(cut.Random(f.rnd), during, fail, fmt.Sprintf("after a power cut during the restart, at %v", cut.Last()))
		}
	}
}

func (f *faulty) check(fs *memdisk.FS, l *ledger, fail func(string, ...any), what string) {
	f.states++
	if err := f.recovers(fs, l); err != nil {
		fail("%s: %v", what, err)
	}
}

// live runs a short life of a database on a disk that fails as the hook says: a few operations
// of each kind, a restart, and a few more. The error is one that no fault explains.
func (f *faulty) live(fs *memdisk.FS, hook func(memdisk.Op) error) error {
	f.acked, f.failed = 0, false
	clock := newTestClock()
	var faulted atomic.Pointer[memdisk.Op] // the first call that failed
	fs.Fail(func(op memdisk.Op) error {
		if op.Err = hook(op); op.Err != nil {
			faulted.CompareAndSwap(nil, &op)
		}
		return op.Err
	})
	o := f.o
	o.FS, o.Clock = fs, clock.read
	var ids atomic.Int64
	for _, script := range []func(*faulty, *player){(*faulty).first, (*faulty).second} {
		d, err := Open(o)
		if err != nil {
			if faulted.Load() == nil {
				return fmt.Errorf("open: %w", err)
			}
			return nil
		}
		before := faulted.Load()
		script(f, &player{d: d, fs: fs, clock: clock, ids: &ids})
		during := faulted.Load()
		if d.Err() != nil {
			<-d.Failed()
			if _, err := d.AddSequence(Key{"a", "late"}, 1); !errors.Is(err, ErrStopped) {
				return fmt.Errorf("writes are stopped, but a write gets %v", err)
			}
		}
		err = d.Close()
		f.failed = f.failed || d.Err() != nil
		switch {
		case d.Err() != nil && err == nil:
			return errors.New("writes were stopped, but Close returns no error")
		case err != nil && faulted.Load() == nil:
			return fmt.Errorf("close: %w", err)
		case before == nil && during != nil && d.Err() == nil && mustStop(*during):
			return errors.New("writes were not stopped")
		}
	}
	return nil
}

// mustStop reports whether writes have to stop because it is unknown what the disk has after
// the failed call. They go on if the disk was full while something was made ahead of need, or
// if the call was for the snapshot of the index, which is a copy.
func mustStop(op memdisk.Op) bool {
	if disk.IsFull(op.Err) || strings.Contains(op.Name, "index") || strings.Contains(op.Name, "/names") {
		return false
	}
	switch op.Kind {
	case memdisk.Write, memdisk.Sync, memdisk.Store, memdisk.SyncMap:
		return true
	}
	return false
}

// want checks an answer and records what is wrong with it.
func (f *faulty) want(err error) {
	switch {
	case err == nil:
		f.acked++
	case failed(err):
	default:
		f.t.Errorf("an answer that is not documented: %v", err)
	}
}

func (f *faulty) first(p *player) {
	for i := range 4 {
		_, err := p.add(kindSequence, Key{"hot", "a"}, 2)
		f.want(err)
		_, err = p.set(Key{"value", fmt.Sprint(i % 2)}, int64(600+i), 0)
		f.want(err)
	}
	// More than an extent of the largest slots, and more than a segment.
	for i := range 12 {
		_, err := p.add(kindCounter, Key{"new", fmt.Sprint(i, strings.Repeat("x", 240))}, 1)
		f.want(err)
	}
	f.want(p.reset(kindCounter, Key{"new", "0" + strings.Repeat("x", 240)}))
	f.want(p.handOver("once"))
	_, err := p.lock(context.Background(), LockRequest{Key: Key{"lock", "short"}, Dur: time.Second})
	f.want(err)
	p.pass(2 * time.Second)
	f.want(p.setClock(-time.Hour))
	_, err = p.set(Key{"value", "2"}, 5, time.Minute)
	f.want(err)
	f.want(p.remove(Key{"value", "1"}))
}

func (f *faulty) second(p *player) {
	_, err := p.add(kindSequence, Key{"hot", "a"}, 2)
	f.want(err)
	f.want(p.reset(kindSequence, Key{"hot", "a"}))
	_, err = p.lock(context.Background(), LockRequest{Key: Key{"lock", "short"}, Owner: "second", Dur: time.Hour})
	if !(f.failed && isHeld(err)) { // the first life could not write that time had passed
		f.want(err)
	}
	_, err = p.set(Key{"value", "0"}, 77, 0)
	f.want(err)
}

// The same under load: a call of the disk fails while several clients wait and other calls are
// in flight.
func TestDiskFailsUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := &faulty{crasher: &crasher{t: t, rnd: rnd, o: tiny(nil, newTestClock())}}
	f.o.Segment, f.o.CheckpointEvery, f.o.QuietAfter = 8<<10, 4<<10, time.Microsecond
	runs := 100
	if testing.Short() || underRace {
		runs = 10
	}
	for range max(runs, *crashStates/100) {
		fs, clock := memdisk.New(), newTestClock()
		o := f.o
		o.FS, o.Clock = fs, clock.read
		d := mustOpen(t, o)
		how, n := faults[rnd.IntN(len(faults))], fs.Len()+rnd.IntN(800)
		var hit atomic.Pointer[memdisk.Op]
		fs.Fail(func(op memdisk.Op) error {
			runtime.Gosched()
			if how.may(op) && op.N >= n && (hit.CompareAndSwap(nil, &op) || how.stay) {
				return how.err
			}
			return nil
		})
		l := &load{player: newPlayer(d, fs, clock), workers: 2 + rnd.IntN(8), steps: 20, seed: rnd.Uint64(), faulty: true}
		l.keeps = disk.IsFull(how.err)
		fail := func(format string, args ...any) {
			t.Errorf("seed %d, %s at %v: %s", seed, how.name, hit.Load(), fmt.Sprintf(format, args...))
		}
		if err := l.run(); err != nil {
			fail("%v", err)
		}
		if err := d.Close(); err != nil && hit.Load() == nil {
			fail("close: %v", err)
		}
		if open := fs.OpenHandles(); open > 0 {
			fail("%d handles are open after Close", open)
		}
		if hit.Load() == nil {
			hit.Store(new(memdisk.Op))
		}
		f.after(fs, *hit.Load(), fail)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d states", f.states)
}

// After a failed write or sync of a checkpoint nobody knows what the disk has.
func TestFailedCheckpointStopsWrites(t *testing.T) {
	for _, c := range []struct {
		kind memdisk.Kind
		file string
	}{{memdisk.Write, "CHECKPOINT"}, {memdisk.Sync, "CHECKPOINT"}, {memdisk.SyncMap, "slots-64"}} {
		fs := memdisk.New()
		d := mustOpen(t, tiny(fs, newTestClock()))
		_, err := d.AddSequence(Key{"a", "s"}, 1)
		wantDone(t, "add", err)
		fs.Fail(func(op memdisk.Op) error {
			if op.Kind == c.kind && strings.HasSuffix(op.Name, c.file) {
				return syscall.EIO
			}
			return nil
		})
		if err := d.store.Checkpoint(); err == nil {
			t.Errorf("%v of %s fails, and the checkpoint says nothing of it", c.kind, c.file)
		}
		if _, err := d.AddSequence(Key{"a", "s"}, 1); !errors.Is(err, ErrStopped) {
			t.Errorf("after a failed %v of %s: %v, want ErrStopped", c.kind, c.file, err)
		}
		if err := d.Close(); err == nil {
			t.Error("a close after a failure says nothing of it")
		}
	}
}
