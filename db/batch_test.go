package db

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

func TestAThousandAtOnceAreOneCommit(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Segment = 1 << 20
	var batches []Commit
	o.OnCommit = func(c Commit) { batches = append(batches, c) }
	d := mustOpen(t, o)
	hot := Key{"a", "hot"}
	g := barrierAt(fs)
	var wg sync.WaitGroup
	got := make([]int64, 1001)
	ask := func(i int) {
		wg.Go(func() {
			var err error
			if got[i], err = d.AddSequence(hot, 1); err != nil {
				t.Error(err)
			}
		})
	}
	ask(0)
	<-g.reached
	for i := range 1000 {
		ask(i + 1)
	}
	awaitAsked(d, 1000)
	g.open()
	wg.Wait()
	if n := d.Stats().Commits; n != 2 {
		t.Errorf("%d commits", n)
	}
	mustClose(t, d)
	if len(batches) != 2 || batches[0].Operations != 1 || batches[1].Operations != 1000 || batches[1].Bytes > 200 {
		t.Errorf("OnCommit was told %+v", batches)
	}
	seen := make(map[int64]bool)
	for _, v := range got {
		if v < 1 || v > 1001 || seen[v] {
			t.Errorf("%d was handed out twice or never was the value", v)
		}
		seen[v] = true
	}
}

func TestABatchThatDoesNotFitIntoTheSegmentGoesIntoTheNext(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	id := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 240)) }
	wantDone(t, "a write", addN(d, id(0), 1))
	g := barrierAt(fs)
	var wg sync.WaitGroup
	for i := range 200 { // a dozen segments
		wg.Go(func() {
			if err := addN(d, id(i), 1); err != nil {
				t.Error(err)
			}
		})
	}
	<-g.reached
	g.open()
	wg.Wait()
	if at := d.state.Log.Segment; at < 8 {
		t.Errorf("the log is in segment %d", at)
	}
	crashed := fs.Cut(fs.Len()).Nothing()
	mustClose(t, d)
	o.FS = crashed
	wantDone(t, "verify", verifies(crashed, o))
	d = mustOpen(t, o)
	for i := range 200 {
		want := int64(1)
		if i == 0 {
			want = 2
		}
		if v, err := d.Counter(Key{"a", id(i)}); v != want || err != nil {
			t.Errorf("%d: %d, %v", i, v, err)
		}
	}
	mustClose(t, d)
}

// The records of a batch are counted to the last byte: one too many, and the log
// could take the batch nowhere.
func TestABatchThatFillsASegmentFits(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.defaults()
	wantDone(t, "mkdir", fs.MkdirAll(o.Dir))
	d, err := open(&o) // without its writer
	wantDone(t, "open", err)
	wantDone(t, "a second segment", d.log.Prepare())
	d.moment = d.clock.read()
	room := d.log.Room(true) - 48 // the header of a batch
	lock := newOp(verbLock, kindLock, door)
	lock.dur = int64(time.Hour)
	d.tokens.last.Store(d.tokens.limit.Load()) // the lock's grant needs a block of tokens too
	one, two := valueOp{check: AnyVersion}, valueOp{check: AnyVersion}
	first, second := d.newValueOp(verbSet, Key{"a", "1"}, &one), d.newValueOp(verbSet, Key{"a", "2"}, &two)
	room -= slotRecord + 256 + wal.RecordSize(momentSize) + one.room(first.key) + two.room(second.key)
	one.data, two.data = make([]byte, room/16*8), make([]byte, room/16*8)
	todo := []*op{lock, first, second}
	for _, want := range []int{2, 1} {
		if n := d.commit(todo); n != want {
			t.Errorf("a batch of %d operations, want %d", n, want)
		}
		for ; want > 0; want-- {
			<-todo[0].done
			wantDone(t, "an operation", todo[0].err)
			todo = todo[1:]
		}
	}
	if at := d.state.Log.Segment; at != 2 {
		t.Errorf("the log is in segment %d", at)
	}
	wantDone(t, "close", (&directory{ckpt: d.ckpt, tables: d.tables, log: d.log}).close())
}

// A slot that was taken and given up within one batch lies below one that is in
// use then. It holds the image of a free slot, also after a checkpoint and a crash.
func TestASlotTakenInVainIsNoDamage(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	g := barrierAt(fs)
	var wg sync.WaitGroup
	ask := func(queued int, do func() error) {
		wg.Go(func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		})
		awaitAsked(d, queued)
	}
	ask(0, func() error { return addN(d, "first", 1) })
	<-g.reached
	ask(1, func() error { return addN(d, "in vain", 1) })
	ask(2, func() error { return addN(d, "after it", 1) })
	ask(3, func() error { return d.ResetCounter(Key{"a", "in vain"}) })
	from := fs.Len()
	g.open()
	wg.Wait()
	mustClose(t, d)
	rnd := rand.New(rand.NewPCG(7, 8))
	for cut := range fs.Cuts() {
		if cut.At() < from {
			continue
		}
		for _, left := range []*memdisk.FS{cut.Nothing(), cut.Everything(), cut.Random(rnd)} {
			o.FS = left
			mustClose(t, mustOpen(t, o))
		}
	}
	o.FS = fs
	d = mustOpen(t, o)
	if n := d.tables.Used()[0]; n != 3 {
		t.Errorf("the high-water mark is at %d: nothing was taken in vain", n)
	}
	mustClose(t, d)
}
