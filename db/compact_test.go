package db

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// compactAll compacts every segment before the last checkpoint, worth it or not.
func compactAll(d *DB) { compactSome(d, 1) }

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

// Writers change and delete keys, and readers read them, while every segment is
// compacted over and over; then the log alone has to say the same.
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
	var stop atomic.Bool
	var clients, compactor sync.WaitGroup
	compactor.Go(func() {
		for !stop.Load() {
			if err := saveIndex(d); err != nil {
				t.Error(err)
				return
			}
			compactAll(d)
		}
	})
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
	stop.Store(true)
	compactor.Wait()
	freed := d.Stats().Compaction.Freed
	after := func(d *DB, what string) {
		for w := range writers {
			for k := range keys {
				check(d, what, w, k)
			}
		}
	}
	after(d, "in the end")
	// The segment with which the last one ends may be freed by now.
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

// What a survey saw of a key is no longer so when the writer comes to it.
func TestAMoveOfWhatHasChangedSinceIsNotDone(t *testing.T) {
	key := Key{"1", "k"}
	data := func(s string) *ValueSet {
		return &ValueSet{Key: key, Data: []byte(s), Conditions: Conditions{Check: AnyVersion}}
	}
	for _, what := range []string{"value", "mark"} {
		for _, change := range []string{"before", "before, with a refusal in the batch", "in the batch"} {
			o := tinyKV(memdisk.New(), nil)
			d := mustOpen(t, o)
			m := kvlog.Move{Type: kvlog.TypeTombstone, Acc: key.Acc, ID: key.ID, Hash: d.store.Values.Hash(key.Acc, key.ID), Origin: 1}
			if what == "value" {
				if _, err := d.Set(SetRequest{Key: key, Data: []byte("old"), Check: AnyVersion}); err != nil {
					t.Fatal(err)
				}
				m = moveOf(t, d, key)
			}
			mo := &store.Move{Moves: []kvlog.Move{m}, Bytes: 100}
			refused := data("refused")
			refused.Check = 1 << 40
			var errs []error
			switch change {
			case "in the batch":
				errs = inOneBatch(d, data("new"), mo)
			default:
				if _, err := d.Set(SetRequest{Key: key, Data: []byte("new"), Check: AnyVersion}); err != nil {
					t.Fatal(err)
				}
				if change == "before" {
					errs = inOneBatch(d, mo)
				} else {
					errs = inOneBatch(d, refused, mo)
				}
			}
			if err := errs[len(errs)-1]; err != nil || mo.Moved != 0 {
				t.Errorf("%s, changed %s: moved %d bytes, %v", what, change, mo.Moved, err)
			}
			for range 2 {
				if v, err := d.Get(key); err != nil || string(v.Data) != "new" {
					t.Errorf("%s, changed %s: %q %v", what, change, v.Data, err)
				}
				mustClose(t, d)
				dropIndex(o.FS.(*memdisk.FS))
				d = mustOpen(t, o)
			}
			mustClose(t, d)
		}
	}
}

// The value that is over took the place of one that never ends, which an index
// built anew would find, were there no mark.
func TestAValueThatIsOverGoesWithAMarkWhileAnOlderOneMayBeLeft(t *testing.T) {
	clock := newTestClock()
	o := tinyKV(memdisk.New(), clock.read)
	o.CompactRatio = 1000 // only what the test asks for
	d := mustOpen(t, o)
	key, fills := Key{"1", "k"}, 0
	put := func(k Key, ttl time.Duration) (segment uint64) {
		t.Helper()
		if _, err := d.Set(SetRequest{Key: k, Data: make([]byte, 500), TTL: ttl, Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
		return d.writer.Position().Log.Segment
	}
	fill := func(segment uint64) {
		t.Helper()
		for put(Key{"1", fmt.Sprint("fill ", fills)}, 0) == segment {
			fills++
		}
	}
	first := put(key, 0)
	fill(first)
	second := put(key, time.Minute)
	fill(second)
	clock.pass(time.Hour)
	if err := d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	d.store.CompactSegment(second)
	if held := d.store.Values.Segments(); !held[first] || held[second] {
		t.Fatalf("the segments %v are held, want %d and not %d", held, first, second)
	}
	for range 2 {
		if _, err := d.Get(key); !errors.Is(err, ErrNotFound) {
			t.Errorf("the value that is over: %v", err)
		}
		mustClose(t, d)
		dropIndex(o.FS.(*memdisk.FS))
		d = mustOpen(t, o)
	}
	mustClose(t, d)
}

// moveOf is the move of the record that a key has now.
func moveOf(t *testing.T, d *DB, k Key) kvlog.Move {
	t.Helper()
	hash := d.store.Values.Hash(k.Acc, k.ID)
	f, err := d.store.Values.Find(k.Acc, k.ID, hash)
	v, ok, err2 := d.store.Values.Get(k.Acc, k.ID, hash, math.MaxInt)
	if !f.OK || !ok || err != nil || err2 != nil {
		t.Fatal(f, ok, err, err2)
	}
	body := make([]byte, kvlog.ValueSize(k.Acc, k.ID, string(v.Type), string(v.Encoding), len(v.Data)))
	d.store.Values.Put(body, k.Acc, k.ID, string(v.Type), string(v.Encoding), v.Version, v.Expires, v.Data, v.Sum)
	return kvlog.Move{Type: kvlog.TypeValue, Acc: k.Acc, ID: k.ID, Hash: hash, Size: f.Size, Body: body, Version: v.Version, Expires: v.Expires, Loc: f.Loc}
}

// A damaged record is met by compaction: its segment stays, all else moves on.
func TestADamagedRecordKeepsItsSegmentAndHarmsNoOther(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	d := mustOpen(t, o)
	put := func(k string) {
		t.Helper()
		if _, err := d.Set(SetRequest{Key: Key{"1", k}, Data: bytes.Repeat([]byte(k), 500), Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("bad")
	put("c")
	for i := range 100 { // into later segments
		put(fmt.Sprint(i % 3))
	}
	spoil(t, fs, bytes.Repeat([]byte("bad"), 100))
	if err := d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	held := len(d.store.Values.Segments())
	for range 2 {
		compactAll(d)
	}
	get := func(k string) error {
		v, err := d.Get(Key{"1", k})
		if err == nil && !bytes.Equal(v.Data, bytes.Repeat([]byte(k), 500)) {
			t.Errorf("%s has other data", k)
		}
		return err
	}
	check := func(what string, bad error) {
		t.Helper()
		for _, k := range []string{"a", "c", "0", "1", "2"} {
			if err := get(k); err != nil {
				t.Errorf("%s: %s: %v", what, k, err)
			}
		}
		if err := get("bad"); !errors.Is(err, bad) {
			t.Errorf("%s: the damaged value: %v, want %v", what, err, bad)
		}
	}
	check("compacted", ErrDamaged)
	named := false
	if _, err := store.VerifyWith(store.Options{FS: fs.Clone(), Dir: o.Dir, Segment: o.Segment, Extent: o.Extent}, func(d *disk.Damage) { named = named || strings.Contains(d.Error(), `the value "bad" of account "1"`) }); err != nil || !named {
		t.Errorf("verify does not name the damaged value: %v", err)
	}
	if !d.store.Values.Segments()[1] {
		t.Error("the segment with the damaged record was released")
	}
	if now := len(d.store.Values.Segments()); now >= held || d.Stats().Values.Damaged == 0 {
		t.Errorf("%d segments of %d are held, %d records were damaged", now, held, d.Stats().Values.Damaged)
	}
	mustClose(t, d)
	for _, keep := range []bool{true, false} {
		if !keep {
			dropIndex(fs)
		}
		d = mustOpen(t, o)
		check("restarted", ErrDamaged)
		mustClose(t, d)
	}
	d = mustOpen(t, o)
	put("bad")
	check("overwritten", nil)
	mustClose(t, d)
	d = mustOpen(t, o)
	check("overwritten and restarted", nil)
	mustClose(t, d)
}

// spoil flips a bit in the midst of the first place that holds what.
func spoil(t *testing.T, fs *memdisk.FS, what []byte) {
	t.Helper()
	for _, name := range fs.Files() {
		b, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, what); i >= 0 {
			f, err := fs.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{b[i+len(what)/2] ^ 1}, int64(i+len(what)/2)); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("nothing holds %q", what)
}
