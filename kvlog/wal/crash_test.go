package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// The notes in a disk's journal: what the log had promised by that moment.
type (
	begun   struct{ body string }  // Append was called
	acked   struct{ body string }  // Append returned
	aborted struct{}               // Append failed and wrote nothing
	served  struct{ all []string } // a start has finished, with these records
	// checkpointed stands for a CHECKPOINT: a new log counts from the first one on.
	checkpointed struct {
		from     Pos
		segments []uint64
		all      []string // after from
	}
)

// history is what a start must find: everything acknowledged, and perhaps begun.
type history struct {
	from     Pos
	segments []uint64
	acked    []string
	begun    string
}

func (h history) after(notes []any) history {
	for _, note := range notes {
		switch n := note.(type) {
		case begun:
			h.begun = n.body
		case acked:
			h.acked, h.begun = append(slices.Clip(h.acked), n.body), ""
		case aborted:
			h.begun = ""
		case served:
			h.acked, h.begun = n.all, ""
		case checkpointed:
			h.from, h.segments, h.acked = n.from, n.segments, n.all
		}
	}
	return h
}

// driver writes a log and records what it promises.
type driver struct {
	disk *memdisk.FS
	o    Options
	l    *Log
	run  string // tells apart the records of different starts
	n    int
	all  []string // after the last checkpoint
	ends []Pos    // of the batches that hold them
}

// recover starts the log on a disk and makes sure that it holds what it must.
func (h history) recover(fs *memdisk.FS, run string) (*driver, error) {
	d := &driver{disk: fs, o: testOptions(fs), run: run}
	if h.segments == nil {
		from, err := Create(d.o)
		if err != nil {
			return nil, fmt.Errorf("create again: %w", err)
		}
		h.from, h.segments = from, []uint64{from.Segment}
		fs.Mark(checkpointed{from: from, segments: h.segments})
	}
	var damages []error
	end, err := Verify(d.o, h.from, h.segments, func(e *disk.Damage) { damages = append(damages, e) })
	if err := errors.Join(append(damages, err)...); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	l, r, err := restart(d.o, h.from, h.segments)
	if err != nil {
		return nil, err
	}
	d.l = l
	if r.tail.End != end.End || r.tail.Torn != end.Torn {
		return d, fmt.Errorf("the start ends the log at %+v (%q), verify at %+v (%q)", r.tail.End, r.tail.Torn, end.End, end.Torn)
	}
	for i := range r.got {
		d.all = append(d.all, strings.TrimRight(r.got[i][2:], " "))
		d.ends = append(d.ends, r.tail.End) // good enough for a checkpoint
	}
	if !slices.Equal(d.all, h.acked) && !(h.begun != "" && slices.Equal(d.all, append(slices.Clip(h.acked), h.begun))) {
		return d, fmt.Errorf("recovered %q, want %q and perhaps %q", d.all, h.acked, h.begun)
	}
	fs.Mark(served{slices.Clone(d.all)})
	return d, nil
}

// append appends a batch with one record, size bytes long.
func (d *driver) append(size int) error {
	d.n++
	body := fmt.Sprintf("%s%d", d.run, d.n)
	d.disk.Mark(begun{body})
	end, err := d.l.Append(batchOf(body + strings.Repeat(" ", size-len(body))))
	if errors.Is(err, ErrNoRoom) {
		d.disk.Mark(aborted{})
		if err := d.l.Prepare(); err != nil {
			return err
		}
		return d.append(size)
	}
	if err != nil {
		return err
	}
	d.disk.Mark(acked{body})
	d.all, d.ends = append(d.all, body), append(d.ends, end)
	return nil
}

// checkpoint forgets all but the last two batches, and frees their segments.
func (d *driver) checkpoint() error {
	if k := len(d.all) - 2; k > 0 {
		from := d.ends[k-1]
		d.all, d.ends = slices.Clone(d.all[k:]), slices.Clone(d.ends[k:])
		d.disk.Mark(checkpointed{from, []uint64{from.Segment}, d.all})
		return d.l.Free(from.Segment, nil)
	}
	return nil
}

// prepareWhile prepares a segment, and appends a batch before each of the disk calls that
// this makes.
func (d *driver) prepareWhile() error {
	var err error
	busy := false
	d.disk.Fail(func(op memdisk.Op) error {
		if !busy && op.Kind != memdisk.Create && err == nil && d.l.Room(true) >= 256 {
			busy = true
			err = d.append(40)
			busy = false
		}
		return nil
	})
	err = errors.Join(d.l.Prepare(), err)
	d.disk.Fail(nil)
	return err
}

// TestEveryCrashKeepsWhatWasAcknowledged cuts the power at each moment of a
// log's life, and once more at moments of the start that follows and of the
// appends after it.
func TestEveryCrashKeepsWhatWasAcknowledged(t *testing.T) {
	disk := memdisk.New()
	d, err := history{}.recover(disk, "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return d.append(10) },
		func() error { return d.append(1500) },
		d.prepareWhile,
		func() error { return d.append(1800) }, // rolls
		func() error { return d.append(600) },
		d.prepareWhile,
		func() error { return d.append(1900) },
		d.checkpoint,
		func() error { return d.append(1200) }, // rolls
		func() error { return d.append(3000) }, // rolls, with nothing prepared
		func() error { return d.append(100) },
		d.checkpoint,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if segments := d.l.Segments(); len(segments) < 1 || segments[0] < 3 {
		t.Fatalf("segments %v: the test needs more rolls", segments)
	}
	defer d.l.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	states, again := 0, 0
	for cut := range disk.Cuts() {
		h := history{}.after(cut.Marks())
		for i, state := range crashStates(cut, rnd, 4) {
			states++
			second, err := crashAndGoOn(h, state, "b")
			if err != nil {
				t.Fatalf("state %d after entry %d, %v: %v", i, cut.At(), cut.Last(), err)
			}
			for cut2 := range second.Cuts() {
				if rnd.IntN(16) > 0 {
					continue
				}
				h2 := h.after(cut2.Marks())
				for i2, state := range crashStates(cut2, rnd, 1) {
					again++
					if _, err := crashAndGoOn(h2, state, "c"); err != nil {
						t.Fatalf("state %d after entry %d, %v; then state %d after entry %d, %v: %v", i, cut.At(), cut.Last(), i2, cut2.At(), cut2.Last(), err)
					}
				}
			}
		}
	}
	t.Logf("%d states after one crash, %d after two", states, again)
}

// crashStates returns states that a power cut can leave: the two extremes, and some at random.
func crashStates(cut *memdisk.Cut, rnd *rand.Rand, random int) []*memdisk.FS {
	states := []*memdisk.FS{cut.Nothing()}
	if cut.Unsynced() {
		states = append(states, cut.Everything())
		for range random {
			states = append(states, cut.Random(rnd))
		}
	}
	return states
}

// crashAndGoOn starts the log on what a crash left, appends to it, and checks that all of
// it is there after the next crash.
func crashAndGoOn(h history, disk *memdisk.FS, run string) (*memdisk.FS, error) {
	d, err := h.recover(disk, run)
	if err == nil {
		err = errors.Join(d.append(20), d.append(2000))
	}
	if err == nil {
		err = d.prepareWhile()
	}
	if err != nil {
		return nil, err
	}
	if err := d.l.Close(); err != nil {
		return nil, err
	}
	if n := disk.OpenHandles(); n != 0 {
		return nil, fmt.Errorf("%d files are left open", n)
	}
	last, err := history{}.after([]any{checkpointed{h.from, h.segments, nil}}).after(disk.Cut(disk.Len()).Marks()).recover(disk.Reopen(), "z")
	if err != nil {
		return nil, fmt.Errorf("start again: %w", err)
	}
	return disk, last.l.Close()
}

// life is a log's life in which any call may fail: a failed Append ends it.
func life(disk *memdisk.FS) (d *driver, err error) {
	d, err = history{}.recover(disk, "a")
	if err != nil {
		return d, err
	}
	for i := range 10 {
		if i%3 == 2 {
			if err := d.checkpoint(); err != nil {
				return d, err
			}
		}
		if d.l.NeedsPrepare() && i%2 == 0 {
			// Not final: it is tried again when needed.
			_ = d.l.Prepare()
		}
		if err := d.append(900); err != nil {
			return d, err
		}
	}
	return d, nil
}

// TestEveryCallMayFail fails each call of a log's life once, restarts the
// process, and cuts the power at moments after that. By then a failed sync must have
// been repaired.
func TestEveryCallMayFail(t *testing.T) {
	for _, tc := range []struct {
		cause error
		dies  bool // the process, right after that call
	}{{syscall.EIO, false}, {syscall.EIO, true}, {syscall.ENOSPC, false}, {memdisk.Short(700, syscall.EIO), true}} {
		t.Run(fmt.Sprintf("%v dies=%v", tc.cause, tc.dies), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(3, 4))
			failed, met := true, 0
			for n := 1; failed; n++ {
				failed = false
				disk := memdisk.New()
				disk.Fail(func(op memdisk.Op) error {
					if tc.dies && op.N > n {
						disk.Freeze()
					}
					if op.N != n {
						return nil
					}
					failed = true
					return tc.cause
				})
				d, err := life(disk)
				disk.Fail(nil)
				if err != nil {
					met++
				}
				if d != nil && d.l != nil {
					if err := d.l.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if open := disk.OpenHandles(); open != 0 {
					t.Fatalf("call %d failed: %d files are left open", n, open)
				}
				end := disk.Cut(disk.Len())
				h := history{}.after(end.Marks())
				for i, state := range append(crashStates(end, rnd, 1), disk.Reopen()) {
					if err := failAgain(h, state, rnd); err != nil {
						t.Fatalf("call %d failed (%v), state %d: %v", n, err, i, err)
					}
				}
			}
			if met < 10 {
				t.Errorf("only %d calls made a difference", met)
			}
		})
	}
}

// failAgain starts a log while one call at random fails, then as it should, and
// cuts the power at some moment after that.
func failAgain(h history, disk *memdisk.FS, rnd *rand.Rand) error {
	at, calls := 1+rnd.IntN(40), 0
	disk.Fail(func(memdisk.Op) error {
		if calls++; calls == at {
			return syscall.EIO
		}
		return nil
	})
	d, err := h.recover(disk, "b")
	disk.Fail(nil)
	if d != nil && d.l != nil {
		err = errors.Join(err, d.l.Close())
	}
	if err == nil && calls >= at {
		return fmt.Errorf("call %d of the start failed, but the start succeeded", at)
	}
	if open := disk.OpenHandles(); open != 0 {
		return fmt.Errorf("start that failed (%w): %d files are left open", err, open)
	}
	// A new process, the same page cache.
	disk = disk.Reopen()
	h = h.after(disk.Cut(disk.Len()).Marks())
	after := disk.Len()
	if disk, err = crashAndGoOn(h, disk, "c"); err != nil {
		return err
	}
	for cut := range disk.Cuts() {
		if cut.At() < after || rnd.IntN(16) > 0 {
			continue
		}
		for _, state := range crashStates(cut, rnd, 1) {
			if _, err := crashAndGoOn(h.after(cut.Marks()), state, "d"); err != nil {
				return fmt.Errorf("after entry %d, %v: %w", cut.At(), cut.Last(), err)
			}
		}
	}
	return nil
}
