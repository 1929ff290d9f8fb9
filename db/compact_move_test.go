package db

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog"
)

// A key changes between the survey of a compaction and the writer's turn to move it.
func TestCompactionDoesNotMoveWhatHasChanged(t *testing.T) {
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

// The expired value replaced one that never expires. Without a tombstone, an index rebuilt
// from the log would find the old one.
func TestExpiredValueLeavesATombstoneWhileAnOlderOneMayRemain(t *testing.T) {
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

// moveOf returns the operation that moves the current record of a key.
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

// Compaction finds a damaged record: it keeps that segment and moves all other records.
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
