package db

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

func TestAThousandAtOnceAreOneCommit(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	o.Segment = 1 << 20
	var batches watcher
	o.Observer = &batches
	d := mustOpen(t, o)
	hot := Key{"a", "hot"}
	g := fs.NewBarrier()
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
	<-g.Reached
	for i := range 1000 {
		ask(i + 1)
	}
	awaitAsked(d, 1000)
	g.Open()
	wg.Wait()
	if n := d.Stats().Commits; n != 2 {
		t.Errorf("%d commits", n)
	}
	mustClose(t, d)
	if b := batches.batches; len(b) != 2 || b[0].Calls != 1 || b[1].Calls != 1000 || b[1].Bytes > 200 {
		t.Errorf("the observer was told %+v", b)
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
	g := fs.NewBarrier()
	var wg sync.WaitGroup
	for i := range 200 { // a dozen segments
		wg.Go(func() {
			if err := addN(d, id(i), 1); err != nil {
				t.Error(err)
			}
		})
	}
	<-g.Reached
	g.Open()
	wg.Wait()
	if at := d.writer.Position().Log.Segment; at < 8 {
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

// The size of a batch's records is computed to the byte. With one byte too many the batch
// would not fit into any segment.
func TestABatchThatFillsASegmentFits(t *testing.T) {
	for over, want := range map[int]uint64{0: 2, 16: 3} {
		fs := memdisk.New()
		d := mustOpen(t, tiny(fs, newTestClock()))
		awaitPrepared(d)
		wantDone(t, "a write", addN(d, "first", 1))
		batches := d.writer.Commits()
		g := fs.NewBarrier()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := addN(d, "first", 1); err != nil {
				t.Error(err)
			}
		})
		<-g.Reached
		d.tokens.Skip(0)                    // the lock's grant needs a block of tokens too
		room := d.store.Log.Room(true) - 48 // the header of a batch
		one, two := &ValueSet{Key: Key{"a", "1"}, Conditions: Conditions{Check: AnyVersion}}, &ValueSet{Key: Key{"a", "2"}, Conditions: Conditions{Check: AnyVersion}}
		room -= 16 + 256 + 24 + 16 + one.Size() + two.Size() // the lock's slot, the moment and the tokens
		one.Data, two.Data = make([]byte, room/16*8), make([]byte, room/16*8+over)
		done := make(chan struct{}, 3)
		var calls []*Call
		for _, op := range []Operation{&LockTake{LockRequest: LockRequest{Key: door, Dur: time.Hour}}, one, two} {
			calls = append(calls, &Call{Op: op, Done: func(*Call) { done <- struct{}{} }})
		}
		wantDone(t, "submit", d.Submit(calls...))
		g.Open()
		wg.Wait()
		for _, c := range calls {
			<-done
			wantDone(t, "an operation", c.Err)
		}
		if n := d.writer.Commits() - batches; n != want {
			t.Errorf("%d bytes over the room: %d batches, want %d", over, n, want)
		}
		mustClose(t, d)
	}
}

// A slot that is allocated and released within one batch can lie below one that stays in use.
// It holds the image of a free slot, even after a checkpoint and a crash.
func TestASlotTakenInVainIsNoDamage(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	g := fs.NewBarrier()
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
	<-g.Reached
	ask(1, func() error { return addN(d, "in vain", 1) })
	ask(2, func() error { return addN(d, "after it", 1) })
	ask(3, func() error { return d.ResetCounter(Key{"a", "in vain"}) })
	from := fs.Len()
	g.Open()
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
	if n := d.store.Tables.Used()[0]; n != 3 {
		t.Errorf("the high-water mark is at %d: nothing was taken in vain", n)
	}
	mustClose(t, d)
}
