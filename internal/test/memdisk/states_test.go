package memdisk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCutsShowMarksAndAgreeWithCut(t *testing.T) {
	r := newRig(t, nil, true)
	for i := range 5 {
		r.write(int64(i)*600, fill(byte('a'+i), 600))
		must(t, r.Sync())
		r.fs.Mark(i)
	}
	acked, n := 0, 0
	for c := range r.fs.Cuts() {
		if c.At() != n {
			t.Fatalf("cut %d is at %d", n, c.At())
		}
		n++
		if c.Last().Kind == Note && c.At() > 0 {
			acked++
		}
		if len(c.Marks()) != acked || acked > 0 && c.Marks()[acked-1] != acked-1 {
			t.Errorf("cut %d: marks %v, want %d", c.At(), c.Marks(), acked)
		}
		worst := read(t, c.Nothing(), "f")
		if len(worst) < 600*acked {
			t.Errorf("cut %d: %d bytes, %d writes were acknowledged", c.At(), len(worst), acked)
		}
		alone := r.fs.Cut(c.At())
		if !bytes.Equal(worst, read(t, alone.Nothing(), "f")) || !bytes.Equal(read(t, c.Everything(), "f"), read(t, alone.Everything(), "f")) {
			t.Errorf("cut %d: Cuts and Cut differ", c.At())
		}
	}
	if n != r.fs.Len()+1 || acked != 5 {
		t.Errorf("%d cuts with %d marks, want %d with 5", n, acked, r.fs.Len()+1)
	}
	var got []string
	for _, op := range r.fs.Journal()[:5] {
		got = append(got, op.String())
	}
	want := []string{"op 1: create f", "op 2: syncdir ", "op 3: sync f", "op 4: write f 600 bytes at 0", "op 5: sync f"}
	if !slices.Equal(got, want) {
		t.Errorf("journal %q, want %q", got, want)
	}
}

// The disk, its cuts and their states share pages. A change of one must not show in another.
func TestStatesAreIndependent(t *testing.T) {
	r := newRig(t, fill('a', 2*pageSize), true)
	for i := range 6 {
		r.write(int64(i%2)*pageSize, fill(byte('b'+i), pageSize))
		if i%3 > 0 {
			must(t, r.Sync())
		}
	}
	show := letters(t, "f", pageSize)
	want := map[*FS]string{}
	add := func(fs *FS) { want[fs] = show(fs) }
	for c := range r.fs.Cuts() {
		add(c.Everything())
		add(c.Nothing())
		add(c.Nothing().Clone())
		add(c.Nothing().Reopen())
	}
	add(r.fs.Clone())
	add(r.fs.Reopen())
	r.write(0, fill('y', 1))
	must(t, r.Sync())
	for fs, w := range want {
		if got := show(fs); got != w {
			t.Errorf("a state that was %q is now %q", w, got)
		}
		must(t, fs.WriteFile("f", fill('x', 2*pageSize)))
		want[fs] = show(fs)
	}
	if got := show(r.fs); got != "yg" {
		t.Errorf("the disk shows %q after changes to its states", got)
	}
	if again := r.fs.Crash(r.fs.Len(), rand.New(rand.NewPCG(1, 1))); again.Len() != 0 {
		t.Errorf("a state has %d entries in its journal", again.Len())
	}
	if c, o := r.fs.Clone().Used(), r.fs.Reopen().Used(); c != 2*pageSize || o != c {
		t.Errorf("%d bytes are used in a Clone, %d in a Reopen, want %d", c, o, 2*pageSize)
	}
	if r.fs.Clone().Len() != 0 || r.fs.Reopen().Len() != r.fs.Len() {
		t.Error("a Clone starts with an empty journal, a Reopen with the old one")
	}
}

func TestSameSeedSameState(t *testing.T) {
	r := newRig(t, nil, true)
	for i := range 50 {
		r.write(int64(i)*777, fill(byte(i), 900))
	}
	for seed := range uint64(20) {
		a := read(t, r.fs.Crash(r.fs.Len(), rand.New(rand.NewPCG(seed, 0))), "f")
		b := read(t, r.fs.Crash(r.fs.Len(), rand.New(rand.NewPCG(seed, 0))), "f")
		if !bytes.Equal(a, b) {
			t.Fatalf("seed %d gives two states", seed)
		}
	}
}

func TestRandomStatesWithAllOrNothingOfAFileAreNotRare(t *testing.T) {
	r := newRig(t, fill('a', 50*sector), true)
	r.write(0, fill('b', 50*sector))
	sum := seen(r.fs, func(fs *FS) string { return fmt.Sprint(bytes.Count(read(t, fs, "f"), []byte("b")) / sector) })
	if sum["0"] < 100 || sum["50"] < 100 || len(sum) < 20 {
		t.Errorf("of 50 sectors so many survive: %v", sum)
	}
}

// BenchmarkStates builds and reads random states of a directory of 100 KB.
func BenchmarkStates(b *testing.B) {
	fs := New()
	must(b, fs.MkdirAll("data/log"))
	for i := range 8 {
		must(b, fs.WriteFile(fmt.Sprint("data/log/", i), fill(byte(i), 12<<10)))
	}
	fs = fs.Clone()
	f, err := fs.Open("data/log/3")
	must(b, err)
	for i := range 500 {
		_, err := f.WriteAt(fill(byte(i), 300), int64(i%30)*300)
		must(b, err)
		if i%5 == 0 {
			must(b, f.Sync())
		}
	}
	rnd, buf := rand.New(rand.NewPCG(1, 1)), make([]byte, 12<<10)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for c := range fs.Cuts() {
			for range 16 {
				f, err := c.Random(rnd).Open("data/log/3")
				must(b, err)
				_, err = f.ReadAt(buf, 0)
				must(b, err)
				n++
			}
		}
		b.ReportMetric(float64(n), "states/op")
	}
}
