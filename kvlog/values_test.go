package kvlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

func TestASnapshotAndTheLogBehindItAreTheIndex(t *testing.T) {
	r := newValuesRig(t)
	state := map[string]string{}
	change := func(i int) {
		id := fmt.Sprint(rand.IntN(300))
		if rand.IntN(4) == 0 {
			r.delete(id)
			delete(state, id)
		} else {
			state[id] = strings.Repeat(fmt.Sprint(i, " "), 1+rand.IntN(100))
			r.set(id, state[id], 0)
		}
	}
	check := func(v *Values) {
		t.Helper()
		for i := range 300 {
			r.want(v, fmt.Sprint(i), state[fmt.Sprint(i)])
		}
		if got := v.Stats(0); got.Keys != len(state) || got.Live != r.v.Stats(0).Live || got.Total != r.v.Stats(0).Total {
			t.Errorf("%+v, want %+v", got, r.v.Stats(0))
		}
	}
	for i := range 500 {
		change(i)
	}
	r.save(r.end)
	for behind := range 3 {
		for i := range 200 * behind {
			change(i)
		}
		v, err := r.reopen(r.disk.Clone(), r.end)
		if err != nil {
			t.Fatal(err)
		}
		check(v)
	}
}

// A snapshot with any damaged byte, or cut to any length, is refused as a whole, and only
// the log is read.
func TestADamagedSnapshotIsRefused(t *testing.T) {
	r := newValuesRig(t)
	for i := range 30 {
		r.set(fmt.Sprint(i), "value", int64(i)*1e12)
	}
	good := r.save(r.end)
	refused := func(what string, b []byte) {
		t.Helper()
		disk := r.disk.Clone()
		if err := disk.WriteFile(SnapshotName, b); err != nil {
			t.Fatal(err)
		}
		v, err := r.reopen(disk, r.end)
		if !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: got %v, want ErrSnapshot", what, err)
		}
		if v.Stats(0).Keys != 30 {
			t.Errorf("%s: %d keys, want 30", what, v.Stats(0).Keys)
		}
	}
	for range 300 {
		b := bytes.Clone(good)
		at := rand.IntN(len(b))
		if at > 1000 && rand.IntN(2) == 0 {
			at %= 1000
		}
		b[at] ^= 1 << rand.IntN(8)
		refused(fmt.Sprintf("byte %d is damaged", at), b)
	}
	for range 30 {
		n := rand.IntN(len(good))
		refused(fmt.Sprintf("cut to %d bytes", n), good[:n])
	}
	refused("a byte longer", append(bytes.Clone(good), 0))
}

func TestASnapshotThatTheLogDoesNotFollowIsRefused(t *testing.T) {
	r := newValuesRig(t)
	r.set("a", "1", 0)
	early := r.end
	r.set("b", "2", 0)
	cases := map[string]wal.Pos{
		"newer than CHECKPOINT": {Segment: 1, Offset: r.end.Offset + 8, Seq: 9},
		"is freed, CHECKPOINT":  {Segment: 0, Offset: 4096, Seq: r.end.Seq},
		"CHECKPOINT with":       {Segment: 1, Offset: r.end.Offset, Seq: r.end.Seq, Sum: r.end.Sum + 1},
		"does not follow":       {Segment: 1, Offset: early.Offset, Seq: early.Seq, Sum: early.Sum + 1},
	}
	for why, at := range cases {
		r.save(at)
		v, err := r.reopen(r.disk.Clone(), r.end)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("refused with %v, want: %s", err, why)
		}
		r.want(v, "a", "1")
		r.want(v, "b", "2")
	}
	r.save(early)
	if v, err := r.reopen(r.disk.Clone(), r.end); err != nil {
		t.Errorf("a good one: %v", err)
	} else {
		r.want(v, "b", "2")
	}
	other := r.disk.Clone()
	if err := other.Remove(SnapshotName); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reopen(other, r.end); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}

// Entries of a segment that was released since the snapshot are dropped.
func TestEntriesOfSegmentsThatAreGoneAreDropped(t *testing.T) {
	r := newValuesRig(t)
	for i := range 400 {
		r.set(fmt.Sprint(i), strings.Repeat("x", 300), 0)
	}
	r.save(r.end)
	moved := 0
	err := r.v.Survey(1, func() int { return 4096 }, func(moves []Move) error {
		var b wal.Batch
		var steps []Step
		for _, m := range moves {
			at := b.Len()
			copy(b.Add(TypeValue, len(m.Body)), m.Body)
			steps = append(steps, Step{Hash: m.Hash, At: at, Size: m.Size, Old: Found{OK: true, Loc: m.Loc, Size: m.Size}})
			moved++
		}
		r.apply(&b, steps...)
		return nil
	}, func(err error) { t.Error(err) })
	if err != nil || moved == 0 {
		t.Fatal(moved, err)
	}
	if err := r.v.Release(1); err != nil {
		t.Fatal(err)
	}
	if err := r.l.Free(2, nil); err != nil {
		t.Fatal(err)
	}
	v, err := r.reopen(r.disk.Clone(), r.end)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		r.want(v, fmt.Sprint(i), strings.Repeat("x", 300))
	}
	if v.Stats(0).Keys != 400 || v.Segments()[1] {
		t.Errorf("%d keys, segment 1 is held: %v", v.Stats(0).Keys, v.Segments()[1])
	}
}

// Release searches the index itself: a value that a survey missed keeps the segment.
func TestASegmentThatIsPointedToIsNotReleased(t *testing.T) {
	r := newValuesRig(t)
	r.set("a", "1", 0)
	for range 2 {
		if err := r.v.Release(1); err == nil || !strings.Contains(err.Error(), "segment 1") {
			t.Fatal(err)
		}
		r.want(r.v, "a", "1")
	}
	if v, ok := r.v.Victim(9, 0); ok {
		t.Errorf("it is picked again: %+v", v)
	}
}

func TestVictimFreesMostAndIsTheOldestIfThatIsLittle(t *testing.T) {
	r := newValuesRig(t)
	fill := func(prefix string, expires int64) {
		for i, s := 0, r.end.Segment; r.end.Segment == s; i++ {
			r.set(fmt.Sprint(prefix, i), strings.Repeat("x", 1000), expires)
		}
	}
	for _, p := range []string{"a", "b", "c"} {
		fill(p, 0)
	}
	pick := func(before uint64, now int64) uint64 {
		v, _ := r.v.Victim(before, now)
		return v.Segment
	}
	if got := pick(4, 0); got != 1 {
		t.Errorf("all is live: segment %d, want the oldest", got)
	}
	if _, ok := r.v.Victim(1, 0); ok {
		t.Error("a segment at the checkpoint was picked")
	}
	for i := range 30 {
		r.set(fmt.Sprint("b", i), "short", 0)
	}
	if got := pick(4, 0); got != 2 {
		t.Errorf("half of segment 2 is garbage: segment %d", got)
	}
	fill("d", 100e9) // from the midst of segment 4
	at := r.end.Segment
	if got := pick(at, 50e9); got != 2 {
		t.Errorf("nothing has expired yet: segment %d, want 2", got)
	}
	if got := pick(at, 1000e9); got != at-1 {
		t.Errorf("most of segment %d has expired: segment %d", at-1, got)
	}
	if live := r.v.Stats(1000e9).Live; live >= r.v.Stats(0).Live-20_000 {
		t.Errorf("%d bytes are live after much has expired, %d before", live, r.v.Stats(0).Live)
	}
}

func TestExpiriesStayFewAndAddUp(t *testing.T) {
	var e expiries
	var all []int64
	for range 5000 {
		x := rand.Int64N(1e16)
		all = append(all, x)
		e.add(x, 10)
		if len(e) > maxExpiries {
			t.Fatalf("%d ends", len(e))
		}
	}
	if got := e.expired(2e16); got != 50_000 {
		t.Errorf("%d bytes in all", got)
	}
	slices.Sort(all)
	for i := 1; i < len(e); i++ {
		n, _ := slices.BinarySearch(all, e[i].at)
		if over := e.expired(e[i].at); over > int64(n)*10 {
			t.Errorf("%d bytes are counted as expired, %d have expired", over, n*10)
		}
	}
	for _, x := range all {
		e.drop(x, 10)
	}
	if len(e) > 0 && e.expired(2e16) > 5_000 {
		t.Errorf("%d bytes are left: %v", e.expired(2e16), e)
	}
}

// In whatever order the values of a segment expire, the histogram notices it within a
// thirty-second of the time that they span.
func TestExpiriesAreNoticedSoon(t *testing.T) {
	const n = 20_000
	for name, end := range map[string]func(i int64) int64{
		"one after the other": func(i int64) int64 { return i * 1e9 },
		"the last first":      func(i int64) int64 { return (n - i) * 1e9 },
		"at random":           func(int64) int64 { return rand.Int64N(n * 1e9) },
		"from both sides": func(i int64) int64 {
			if i%2 == 0 {
				return i * 1e9
			}
			return (n - i) * 1e9
		},
		"ever closer": func(i int64) int64 { return n * 1e9 / (i + 1) },
	} {
		var e expiries
		var all []int64
		for i := range int64(n) {
			all = append(all, end(i))
			e.add(all[i], 1)
		}
		slices.Sort(all)
		for at := int64(0); at <= n+n/32; at += n / 200 {
			known := (at - n/32 - 1) * 1e9
			want, _ := slices.BinarySearch(all, known)
			if got := e.expired(at * 1e9); got < int64(want) {
				t.Errorf("%s: after %d s %d are counted as expired, of %d that expired %d s before", name, at, got, want, n/32)
			}
		}
	}
	var e expiries
	e.add(5e9, 1)
	if e.expired(5e9) != 0 || e.expired(6e9) != 1 {
		t.Error("the expiry of a single value is not noticed within a second")
	}
}

func FuzzSnapshot(f *testing.F) {
	r := newValuesRig(f)
	for i := range 30 {
		r.set(fmt.Sprint(i), "value", int64(i)*1e12)
	}
	good := r.save(r.end)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:snapshotHead])
	f.Add([]byte(snapshotMagic))
	o := r.o
	l, err := wal.Open(o, r.end, []uint64{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := l.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := memdisk.New()
		if err := disk.WriteFile(SnapshotName, b); err != nil {
			t.Fatal(err)
		}
		v := NewValues(l)
		if _, _, err := v.Load(disk, "."); err != nil && v.Stats(0).Keys > 0 {
			t.Errorf("%v, but %d keys were taken", err, v.Stats(0).Keys)
		}
		if disk.OpenHandles() > 0 {
			t.Error("the file is still open")
		}
	})
}

func TestCheckFindsEntriesThatPointElsewhere(t *testing.T) {
	r := newValuesRig(t)
	for i := range 20 {
		r.set(fmt.Sprint(i), "value", 0)
	}
	var found []string
	check := func() int {
		found = nil
		return r.v.Check(func(d *disk.Damage) { found = append(found, d.What) }, func(int64) {})
	}
	if n := check(); n != 20 || len(found) > 0 {
		t.Fatal(n, found)
	}
	_, a := r.find("1")
	hash, b := r.find("2")
	r.v.index.Move(hash, b.Loc, a.Loc)
	r.v.index.Insert(hash, b.Loc+1)
	if check(); len(found) != 2 {
		t.Errorf("two entries are wrong, found: %q", found)
	}
}
