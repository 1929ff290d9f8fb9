package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/disk/memdisk"
	"clouddragon/slots"
)

// barrier stops the writer at its next sync of the log.
type barrier struct {
	reached chan struct{} // closed once the writer is there
	pass    chan error
}

// barrierAt makes the next sync of a log segment wait, of one that is written to.
func barrierAt(fs *memdisk.FS) *barrier {
	g := &barrier{reached: make(chan struct{}), pass: make(chan error)}
	var once sync.Once
	written := ""
	fs.Fail(func(op memdisk.Op) error {
		if !strings.HasSuffix(op.Name, ".seg") {
			return nil
		}
		var err error
		switch {
		case op.Kind == memdisk.Write && op.Off > 0:
			written = op.Name
		case op.Kind == memdisk.Sync && op.Name == written:
			once.Do(func() {
				close(g.reached)
				err = <-g.pass
			})
		}
		return err
	})
	return g
}

func (g *barrier) open() { g.pass <- nil }

// used counts the slots in use.
func used(st slots.Stats) (n uint64) {
	for _, c := range st.Classes {
		n += c.Used
	}
	return n
}

// awaitAsked waits until n operations wait for the writer.
func awaitAsked(d *DB, n int) {
	for d.Stats().Queue < n {
		runtime.Gosched()
	}
}

// refuses says whether Close has got so far that nothing new is taken.
func refuses(d *DB) bool {
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	return d.queue.closed != nil
}

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

// A refusal that rests on what the same batch decided is as unsure as the batch.
func TestRefusalWaitsForWhatItRestsOn(t *testing.T) {
	for _, fails := range []bool{false, true} {
		fs := memdisk.New()
		d := mustOpen(t, tiny(fs, newTestClock()))
		k := Key{"a", "limited"}
		add := func() chan error {
			answer := make(chan error, 1)
			go func() {
				_, err := d.AddCounter(k, 10, 0, 10)
				answer <- err
			}()
			return answer
		}
		// Behind a first commit both wait for the same batch.
		g := barrierAt(fs)
		first := make(chan error, 1)
		go func() { first <- addN(d, "first", 1) }()
		<-g.reached
		one := add()
		awaitAsked(d, 1)
		two := add()
		awaitAsked(d, 2)
		next := barrierAt(fs)
		g.open()
		wantDone(t, "the first", <-first)
		<-next.reached
		if _, err := d.Counter(k); !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not durable can be read: %v", err)
		}
		select {
		case err := <-one:
			t.Errorf("answered before it was durable: %v", err)
		case err := <-two:
			t.Errorf("refused before it was durable: %v", err)
		default:
		}
		if fails {
			next.pass <- syscall.EIO
			if a, b := <-one, <-two; !errors.Is(a, ErrUnknown) || !errors.Is(b, ErrUnknown) {
				t.Errorf("%v and %v, want ErrUnknown twice", a, b)
			}
			<-d.Failed()
			if err := d.Close(); !errors.Is(err, ErrStopped) {
				t.Errorf("close: %v", err)
			}
			continue
		}
		next.open()
		wantDone(t, "the one", <-one)
		if err := <-two; !isConflict(err) {
			t.Errorf("the other: %v", err)
		}
		mustClose(t, d)
	}
}

func TestCloseAnswersWhatIsOnItsWayAndRefusesTheRest(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	before := runtime.NumGoroutine()
	d := mustOpen(t, tiny(fs, clock))
	g := barrierAt(fs)
	answers := make(chan error, 3)
	ask := func(id string) { go func() { answers <- addN(d, id, 1) }() }
	ask("a")
	<-g.reached
	ask("b")
	ask("c")
	awaitAsked(d, 2)
	closed := make(chan error)
	go func() { closed <- d.Close() }()
	for !refuses(d) {
		runtime.Gosched()
	}
	if err := addN(d, "late", 1); !errors.Is(err, ErrStopping) {
		t.Errorf("asked while it closes: %v", err)
	}
	g.open()
	for range 3 {
		wantDone(t, "what was asked before", <-answers)
	}
	wantDone(t, "close", <-closed)
	for what, err := range map[string]error{
		"add":    addN(d, "a", 1),
		"reset":  d.ResetCounter(Key{"a", "a"}),
		"unlock": d.Unlock(UnlockRequest{Key: door}),
		"delete": d.DeleteValue(door, AnyVersion),
		"waiting": func() error {
			_, err := d.Lock(context.Background(), LockRequest{Key: door, Wait: time.Hour})
			return err
		}(),
	} {
		if !errors.Is(err, ErrStopping) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if n := fs.OpenHandles(); n > 0 {
		t.Errorf("%d handles are open", n)
	}
	for tries := 0; runtime.NumGoroutine() > before; tries++ {
		if tries == 1_000_000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
	d = mustOpen(t, tiny(fs, clock))
	for _, id := range []string{"a", "b", "c"} {
		if v, err := d.Counter(Key{"a", id}); v != 1 || err != nil {
			t.Errorf("%s is %d, %v", id, v, err)
		}
	}
	mustClose(t, d)
}

// A segment that becomes ready while the writer looks for room is no full disk.
func TestGrowthInTheBackgroundIsNeverAFullDisk(t *testing.T) {
	fs := memdisk.New()
	fs.Fail(func(op memdisk.Op) error {
		runtime.Gosched()
		return nil
	})
	o := tiny(fs, newTestClock())
	o.Segment = 8 << 10
	d := mustOpen(t, o)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				if _, err := d.AddSequence(Key{"a", fmt.Sprint(w, i%2, strings.Repeat("x", 250))}, 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
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
	d.now, d.wall = d.clock()
	room := d.log.Room(true) - 48 // the header of a batch
	lock := newOp(verbLock, kindLock, door)
	lock.dur = int64(time.Hour)
	d.tokens.last.Store(d.tokens.limit.Load()) // the lock's grant needs a block of tokens too
	one, two := valueOp{check: AnyVersion}, valueOp{check: AnyVersion}
	first, second := d.newValueOp(verbSet, Key{"a", "1"}, &one), d.newValueOp(verbSet, Key{"a", "2"}, &two)
	room -= slotRecord + 256 + one.room(first.key) + two.room(second.key)
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
