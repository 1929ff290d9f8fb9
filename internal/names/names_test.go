package names

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// tiny returns options that make many small runs and blocks.
func tiny(fs *memdisk.FS) Options {
	return Options{FS: fs, Dir: "names", ID: [16]byte{1, 2, 3}, Memory: 20, Block: 64}
}

// rig is an index and a map that must have the same keys.
type rig struct {
	t     *testing.T
	rnd   *rand.Rand
	fs    *memdisk.FS
	x     *Index
	model map[string]bool
	seq   uint64
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	r := &rig{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), fs: memdisk.New(), model: map[string]bool{}}
	var err error
	if r.x, _, err = Open(tiny(r.fs)); err == nil {
		t.Fatal("a new index says that it is complete")
	}
	r.x.Complete()
	return r
}

func (r *rig) key() string {
	return strings.Repeat("x", r.rnd.IntN(4)) + fmt.Sprint(r.rnd.IntN(300))
}

// step does something at random.
func (r *rig) step() {
	r.t.Helper()
	switch n := r.rnd.IntN(100); {
	case n < 60:
		k := r.key()
		r.model[k] = true
		r.x.Add(k)
	case n < 90:
		k := r.key()
		delete(r.model, k)
		r.x.Remove(k)
	case n < 94:
		r.save()
	case n < 98:
		if _, err := r.x.Merge(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// saved is what a Save may have made durable, and has once done is set.
type saved struct {
	seq  uint64
	keys []string
	done bool
}

func (r *rig) save() {
	r.t.Helper()
	r.seq++
	s := saved{seq: r.seq, keys: slices.Sorted(maps.Keys(r.model))}
	r.fs.Mark(s)
	if err := r.x.Save(r.seq); err != nil {
		r.t.Fatal(err)
	}
	s.done = true
	r.fs.Mark(s)
}

// list reads all keys in pages.
func list(x *Index, limit int) ([]string, error) {
	var all []string
	from := ""
	for {
		page, err := x.Page(nil, from, "", limit)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < limit {
			return all, nil
		}
		from = page[len(page)-1] + "\x00"
	}
}

func (r *rig) check() {
	r.t.Helper()
	want := slices.Sorted(maps.Keys(r.model))
	got, err := list(r.x, 1+r.rnd.IntN(50))
	if err != nil || !slices.Equal(got, want) {
		r.t.Fatalf("got %d keys %v, %v; want %d %v", len(got), got, err, len(want), want)
	}
	from, to := r.key(), r.key()
	part, err := r.x.Page(nil, from, to, 1000)
	in := slices.DeleteFunc(want, func(k string) bool { return k < from || k >= to })
	if err != nil || !slices.Equal(part, in) {
		r.t.Fatalf("from %q to %q: got %v, %v; want %v", from, to, part, err, in)
	}
}

func TestIndexIsASortedSet(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, seed)
		for i := range 3000 {
			r.step()
			if i%100 == 0 {
				r.check()
			}
		}
		if s := r.x.Stats(); s.Runs > 12 || s.Runs == 0 {
			t.Errorf("it has %d runs, too many or too few", s.Runs)
		}
		r.save()
		if err := r.x.Close(); err != nil {
			t.Fatal(err)
		}
		x, seq, err := Open(tiny(r.fs))
		if err != nil || seq != r.seq {
			t.Fatalf("seq is %d, want %d: %v", seq, r.seq, err)
		}
		r.x = x
		r.check()
		r.step()
		r.check()
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if n := r.fs.OpenHandles(); n != 0 {
			t.Errorf("%d files are left open", n)
		}
		// Nothing is left but what the manifest names.
		if files := len(r.fs.Files()); files > x.Stats().Runs+20 {
			t.Errorf("%d files are left", files)
		}
	}
}

func TestRemovedKeysTakeNoRoomInTheEnd(t *testing.T) {
	r := newRig(t, 1)
	for i := range 200 {
		r.x.Add(fmt.Sprint(i))
		r.save()
		r.x.Remove(fmt.Sprint(i))
		r.save()
		for {
			if did, err := r.x.Merge(); err != nil || !did {
				break
			}
		}
	}
	if s := r.x.Stats(); s.Disk > 4096 {
		t.Errorf("an empty index has %d bytes on disk", s.Disk)
	}
	r.check()
}

// TestCrashLosesNothingSaved cuts the power at every call to the disk.
func TestCrashLosesNothingSaved(t *testing.T) {
	r := newRig(t, 7)
	for range 600 {
		r.step()
	}
	cuts := 0
	for cut := range r.fs.Cuts() {
		cuts++
		may, must := map[uint64][]string{}, uint64(0)
		for _, n := range cut.Marks() {
			s := n.(saved)
			if may[s.seq] = s.keys; s.done {
				must = s.seq
			}
		}
		for what, fs := range map[string]*memdisk.FS{"nothing": cut.Nothing(), "everything": cut.Everything(), "something": cut.Random(r.rnd)} {
			x, seq, err := Open(tiny(fs))
			if err != nil {
				if must > 0 {
					t.Fatalf("cut at %d, with %s unsynced: save %d is lost: %v", cut.At(), what, must, err)
				}
				if got, err := list(x, 100); err != nil || len(got) > 0 {
					t.Fatalf("cut at %d: an index that could not be opened has keys: %v, %v", cut.At(), got, err)
				}
				continue
			}
			got, err := list(x, 100)
			if err != nil || seq < must || may[seq] == nil || !slices.Equal(got, may[seq]) {
				t.Fatalf("cut at %d, with %s unsynced: seq is %d, at least %d: %v, %v, want %v", cut.At(), what, seq, must, got, err, may[seq])
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if cuts < 100 {
		t.Errorf("only %d cuts", cuts)
	}
}

// TestDamageOfAnyByteIsFound flips bits of every byte of every file.
func TestDamageOfAnyByteIsFound(t *testing.T) {
	r := newRig(t, 3)
	for range 400 {
		r.step()
	}
	r.save()
	want := slices.Sorted(maps.Keys(r.model))
	known := map[string]bool{manifestName: true}
	for _, run := range r.x.runs {
		known[runName(run.number)] = true
	}
	for _, name := range r.fs.Files() {
		b, err := r.fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := -1; at < len(b); at++ {
			fs := r.fs.Clone()
			bad := slices.Clone(b)
			if at < 0 {
				bad = bad[:len(bad)-1]
			} else {
				bad[at] ^= byte(1 + r.rnd.IntN(255))
			}
			if err := fs.WriteFile(name, bad); err != nil {
				t.Fatal(err)
			}
			if _, err := Check(tiny(fs)); known[path.Base(name)] != errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d of %s: Check says %v", at, name, err)
			}
			x, _, err := Open(tiny(fs))
			if err != nil {
				continue
			}
			got, err := list(x, 100)
			if err == nil && !slices.Equal(got, want) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d of %s: %v, %v", at, name, got, err)
			}
			if err == nil && strings.Contains(name, "run-") && slices.ContainsFunc(x.runs, func(run *run) bool { return strings.HasSuffix(name, runName(run.number)) }) {
				t.Fatalf("byte %d of %s: the damage was not found", at, name)
			}
			if err := x.Reset(); err != nil {
				t.Fatal(err)
			}
			if got, err := list(x, 100); err != nil || len(got) != 0 {
				t.Fatalf("after a reset: %v, %v", got, err)
			}
			if _, _, err := Open(tiny(fs)); err == nil {
				t.Fatal("an index that was reset says that it is complete")
			}
		}
	}
}

// TestFailedSaveKeepsAll fails each call to the disk once.
func TestFailedSaveKeepsAll(t *testing.T) {
	for fail := 1; ; fail++ {
		r := newRig(t, 5)
		for range 200 {
			r.step()
		}
		n, hit := 0, false
		r.fs.Fail(func(op memdisk.Op) error {
			if n++; n == fail {
				hit = true
				return errors.New("it fails")
			}
			return nil
		})
		err := r.x.Save(1000)
		if err == nil {
			_, err = r.x.Merge()
		}
		r.fs.Fail(nil)
		if hit && err == nil && fail > 1 {
			t.Logf("call %d: its failure is not told", fail)
		}
		r.check()
		r.model["more"] = true
		r.x.Add("more")
		if err := r.x.Save(2000); err != nil {
			t.Fatalf("call %d: the next save: %v", fail, err)
		}
		r.check()
		x, seq, err := Open(tiny(r.fs.Clone()))
		if err != nil || seq != 2000 {
			t.Fatalf("call %d: seq is %d: %v", fail, seq, err)
		}
		r.x = x
		r.check()
		if !hit {
			return
		}
	}
}

// TestKeysThatStayAreOnOnePage lists keys while others come and go, and while runs
// are written and merged.
func TestKeysThatStayAreOnOnePage(t *testing.T) {
	r := newRig(t, 9)
	var stay []string
	for i := range 200 {
		k := fmt.Sprintf("%03d", i)
		stay = append(stay, k)
		r.x.Add(k)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			r.x.Add(fmt.Sprintf("%03d+", i%200))
			r.x.Remove(fmt.Sprintf("%03d+", (i+100)%200))
			if i%30 == 0 {
				if err := r.x.Save(0); err != nil {
					t.Error(err)
				}
				if _, err := r.x.Merge(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 300 {
		got, err := list(r.x, 1+i%40)
		if err != nil || !slices.IsSorted(got) {
			t.Fatal(got, err)
		}
		got = slices.DeleteFunc(got, func(k string) bool { return strings.HasSuffix(k, "+") })
		if !slices.Equal(got, stay) {
			t.Fatalf("got %v", got)
		}
	}
	close(done)
	wg.Wait()
}

func TestRemoveIfKeepsWhatIsThere(t *testing.T) {
	r := newRig(t, 1)
	r.x.Add("a")
	r.x.Add("b")
	r.x.RemoveIf("a", func() bool { return true })
	r.x.RemoveIf("b", func() bool { return false })
	r.model["a"] = true
	r.check()
}
