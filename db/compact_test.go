package db

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// compactAll compacts every segment before the last checkpoint, worth it or not.
func compactAll(d *DB) { compactSome(d, 1) }

// compactBeside compacts one in so many segments over and over, saving the index in between,
// until the function that it returns is called.
func compactBeside(t *testing.T, d *DB, oneIn int) (end func()) {
	var stop atomic.Bool
	var compactor sync.WaitGroup
	compactor.Go(func() {
		for !stop.Load() {
			if err := saveIndex(d); err != nil {
				t.Error(err)
				return
			}
			compactSome(d, oneIn)
		}
	})
	return func() {
		stop.Store(true)
		compactor.Wait()
	}
}

// compactSome compacts one in so many of them.
func compactSome(d *DB, oneIn int) {
	var ready []uint64
	for n := range d.store.Values.Segments() {
		if n < d.store.CheckpointSegment() {
			ready = append(ready, n)
		}
	}
	rand.Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
	for _, n := range ready[:(len(ready)+oneIn-1)/oneIn] {
		d.store.CompactSegment(n)
	}
}

// saveIndex runs a checkpoint that saves the index, due or not.
func saveIndex(d *DB) error {
	return d.store.CheckpointWithSnapshot()
}

// Clients write, delete and read keys while every segment is compacted over and over. Then an
// index rebuilt from the log alone has to agree.
func TestCompactionBesideTheTrafficLosesAndRevivesNothing(t *testing.T) {
	fs := memdisk.New()
	fs.Fail(func(op memdisk.Op) error { // time for others to join the next batch
		if op.Kind == memdisk.Sync {
			for range 20 {
				runtime.Gosched()
			}
		}
		return nil
	})
	o := tinyKV(fs, nil)
	d := mustOpen(t, o)
	const writers, keys = 8, 3
	type state struct {
		version int64
		data    []byte
	}
	var last [writers][keys]state
	check := func(d *DB, what string, w, k int) {
		key, want := Key{fmt.Sprint(w), fmt.Sprint(k)}, last[w][k]
		got, err := d.Get(key)
		switch {
		case want.version == 0 && errors.Is(err, ErrNotFound):
		case err != nil, got.Version != want.version, !bytes.Equal(got.Data, want.data):
			t.Errorf("%s: %v is version %d (%v), want version %d", what, key, got.Version, err, want.version)
		}
	}
	end := compactBeside(t, d, 1)
	var clients sync.WaitGroup
	for w := range writers {
		clients.Go(func() {
			for i := range 3000 {
				k := rand.IntN(keys)
				s := &last[w][k]
				if rand.IntN(3) == 0 {
					if err := d.DeleteValue(Key{fmt.Sprint(w), fmt.Sprint(k)}, AnyVersion); err != nil {
						t.Error(err)
					}
					*s = state{}
				} else {
					data := bytes.Repeat([]byte{byte(i)}, rand.IntN(900))
					v, err := d.Set(SetRequest{Key: Key{fmt.Sprint(w), fmt.Sprint(k)}, Data: data, Check: s.version})
					if err != nil {
						t.Error(err)
					}
					*s = state{v, data}
				}
				for k := range keys {
					check(d, "beside the traffic", w, k)
				}
			}
		})
	}
	clients.Wait()
	end()
	freed := d.Stats().Compaction.Freed
	after := func(d *DB, what string) {
		for w := range writers {
			for k := range keys {
				check(d, what, w, k)
			}
		}
	}
	after(d, "in the end")
	// The segment in which the last snapshot ends may have been freed by now.
	if err := errors.Join(d.store.PrepareSegment(), saveIndex(d)); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"read from the snapshot", "rebuilt from the log"} {
		copied := fs.Clone()
		if what == "rebuilt from the log" {
			dropIndex(copied)
		}
		o.FS = copied
		again := mustOpen(t, o)
		if (noSnapshot(again) != nil) != (what == "rebuilt from the log") {
			t.Errorf("the index was not %s", what)
		}
		after(again, what)
		mustClose(t, again)
	}
	mustClose(t, d)
	if freed < 10 {
		t.Errorf("only %d segments were freed meanwhile", freed)
	}
}

// One batch holds a move and a change of the same key, in either order.
func TestAMoveAndAChangeInOneBatch(t *testing.T) {
	o := tinyKV(memdisk.New(), nil)
	d := mustOpen(t, o)
	key := Key{"1", "k"}
	for _, change := range []string{"set", "delete"} {
		for _, first := range []bool{true, false} {
			version, err := d.Set(SetRequest{Key: key, Data: []byte("old"), Check: AnyVersion})
			if err != nil {
				t.Fatal(err)
			}
			var c commit.Op = &ValueSet{Key: key, Data: []byte("new"), Conditions: Conditions{Check: version}}
			if change == "delete" {
				c = &ValueDelete{Key: key, Conditions: Conditions{Check: version}}
			}
			m := &store.Move{Moves: []kvlog.Move{moveOf(t, d, key)}, Bytes: 100}
			todo := []commit.Op{m, c}
			if !first {
				slices.Reverse(todo)
			}
			if err := errors.Join(inOneBatch(d, todo...)...); err != nil {
				t.Fatal(err)
			}
			if moved := m.Moved > 0; moved != first {
				t.Errorf("%s, move first %v: moved %v", change, first, moved)
			}
			check := func(d *DB) {
				v, err := d.Get(key)
				if change == "set" && (err != nil || string(v.Data) != "new") || change == "delete" && !errors.Is(err, ErrNotFound) {
					t.Errorf("%s, move first %v: %q %v", change, first, v.Data, err)
				}
			}
			check(d)
			if n := d.Stats().Values.Keys; change == "set" && n != 1 || change == "delete" && n != 0 {
				t.Errorf("%s, move first %v: %d keys in the index", change, first, n)
			}
			mustClose(t, d)
			dropIndex(o.FS.(*memdisk.FS))
			d = mustOpen(t, o)
			check(d)
		}
	}
	mustClose(t, d)
}

// inOneBatch submits operations at once, so that the writer takes them together,
// and returns their answers.
func inOneBatch(d *DB, ops ...commit.Op) []error {
	done := make(chan struct{}, len(ops))
	var calls []*Call
	for _, op := range ops {
		if o, ok := op.(Operation); ok {
			if err := o.prepare(d); err != nil {
				return []error{err}
			}
		}
		calls = append(calls, &Call{Op: op, Done: func(*Call) { done <- struct{}{} }})
	}
	if err := d.writer.Submit(calls...); err != nil {
		return []error{err}
	}
	var errs []error
	for _, c := range calls {
		<-done
		errs = append(errs, c.Err)
	}
	return errs
}

func snapshotAt(d *DB) wal.Pos {
	at, _ := d.store.Snapshot()
	return at
}

func noSnapshot(d *DB) error {
	_, none := d.store.Snapshot()
	return none
}
