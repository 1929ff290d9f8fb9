package hashindex

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// check looks into every shard: entries stand in the order of their homes, are
// counted, and leave one place empty at least.
func check(t interface{ Fatalf(string, ...any) }, x *Index) {
	for i := range x.shards {
		s := &x.shards[i]
		if s.places == nil {
			continue
		}
		n := 0
		for at, e := range s.places {
			if e == 0 {
				continue
			}
			n++
			far := s.distance(e, at)
			before := (at + len(s.places) - 1) % len(s.places)
			if far == 0 {
				continue
			}
			if b := s.places[before]; b == 0 {
				t.Fatalf("shard %d: place %d is empty, but the entry behind it is %d places from home", i, before, far)
			} else if d := s.distance(b, before); far > d+1 {
				t.Fatalf("shard %d: the entry at %d is %d places from home, the one before it %d", i, at, far, d)
			}
		}
		if n != s.n {
			t.Fatalf("shard %d: holds %d entries, counts %d", i, n, s.n)
		}
		if n >= len(s.places) {
			t.Fatalf("shard %d: %d entries in %d places: none is empty", i, n, len(s.places))
		}
	}
}

// known is what of a hash the index keeps: hashes that agree in it are the same to it.
func known(hash uint64) uint64 { return hash >> (64 - shardBits - tagBits) }

func TestIndexIsAMapOfLocations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few shards and few tags, at the ends of the range too, so that
		// homes collide, probes wrap around and shards grow and shrink.
		hashes := rapid.Custom(func(t *rapid.T) uint64 {
			shard := rapid.SampledFrom([]uint64{0, 1, shards - 1}).Draw(t, "shard")
			tag := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(1<<tagBits-3, 1<<tagBits-1),
				rapid.Uint64Range(0, 1<<tagBits-1)).Draw(t, "tag")
			return shard<<(64-shardBits) | tag<<(64-shardBits-tagBits) | rapid.Uint64Range(0, 1).Draw(t, "rest")
		})
		locations := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(MaxLocation-2, MaxLocation))

		x := New()
		type entry struct{ hash, loc uint64 }
		var model []entry
		some := func(t *rapid.T) entry {
			if len(model) > 0 && rapid.Bool().Draw(t, "known") {
				return rapid.SampledFrom(model).Draw(t, "entry")
			}
			return entry{known(hashes.Draw(t, "hash")), locations.Draw(t, "loc")}
		}
		hash := func(e entry) uint64 { return e.hash << (64 - shardBits - tagBits) }
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					h, loc := hashes.Draw(t, "hash"), locations.Draw(t, "loc")
					x.Insert(h, loc)
					model = append(model, entry{known(h), loc})
				}
			},
			"delete": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					e := some(t)
					at := slices.Index(model, e)
					if got := x.Delete(hash(e), e.loc); got != (at >= 0) {
						t.Fatalf("Delete(%#x, %d) = %v", hash(e), e.loc, got)
					}
					if at >= 0 {
						model = slices.Delete(model, at, at+1)
					}
				}
			},
			"move": func(t *rapid.T) {
				e, to := some(t), locations.Draw(t, "to")
				at := slices.Index(model, e)
				if got := x.Move(hash(e), e.loc, to); got != (at >= 0) {
					t.Fatalf("Move(%#x, %d, %d) = %v", hash(e), e.loc, to, got)
				}
				if at >= 0 {
					model[at].loc = to
				}
			},
			"reload": func(t *rapid.T) {
				y := New()
				for _, i := range []int{0, 1, x.Shards() - 1} {
					if err := y.LoadShard(i, x.AppendShard(i, nil)); err != nil {
						t.Fatalf("LoadShard: %v", err)
					}
				}
				x = y
			},
			"": func(t *rapid.T) {
				check(t, x)
				if x.Len() != len(model) {
					t.Fatalf("Len() = %d, wanted %d", x.Len(), len(model))
				}
				want := make(map[uint64][]uint64)
				for _, e := range model {
					want[e.hash] = append(want[e.hash], e.loc)
				}
				for h, locs := range want {
					got := x.Candidates(h<<(64-shardBits-tagBits), nil)
					slices.Sort(got)
					slices.Sort(locs)
					if !slices.Equal(got, locs) {
						t.Fatalf("Candidates of %#x = %d, wanted %d", h, got, locs)
					}
				}
				if h := hashes.Draw(t, "other"); len(want[known(h)]) == 0 {
					if got := x.Candidates(h, nil); len(got) != 0 {
						t.Fatalf("Candidates of %#x = %d, wanted none", h, got)
					}
				}
			},
		})
	})
}

// filled returns an index of n entries with hashes from a fixed seed.
func filled(n int) (*Index, *rand.PCG) {
	x, src := New(), rand.NewPCG(1, 2)
	for i := range n {
		x.Insert(src.Uint64(), uint64(i))
	}
	return x, rand.NewPCG(1, 2)
}

func TestAMillionKeysTakeAtMost12BytesEach(t *testing.T) {
	// A sawtooth: it is to hold at every size, not at one.
	const least, most = 700_000, 1_000_000
	x, src := New(), rand.NewPCG(1, 2)
	worst, at := 0.0, 0
	for i := range most {
		x.Insert(src.Uint64(), uint64(i))
		if n := i + 1; n >= least && n%10_000 == 0 {
			if each := float64(x.Bytes()) / float64(x.Len()); each > worst {
				worst, at = each, n
			}
		}
	}
	t.Logf("%d keys: %.2f bytes each; most from %d on: %.2f bytes each at %d",
		most, float64(x.Bytes())/float64(x.Len()), least, worst, at)
	if worst > 12 {
		t.Errorf("%.2f bytes a key at %d keys, wanted 12 at most", worst, at)
	}
	check(t, x)
}

func TestDeletedKeysGiveTheirMemoryBack(t *testing.T) {
	const n, keep = 100_000, 10_000
	x, src := filled(n)
	for i := range n - keep {
		if !x.Delete(src.Uint64(), uint64(i)) {
			t.Fatalf("entry %d is gone", i)
		}
	}
	check(t, x)
	each := float64(x.Bytes()-New().Bytes()) / float64(x.Len())
	if each > 32 {
		t.Errorf("%.1f bytes a key once %d of %d are deleted, wanted 32 at most", each, n-keep, n)
	}
}

func TestAnEmptyIndexIsSmall(t *testing.T) {
	x := New()
	if got := x.Bytes(); got > 64<<10 {
		t.Errorf("an empty index takes %d bytes, wanted 64 KiB at most", got)
	}
	if got := x.Candidates(1, nil); got != nil {
		t.Errorf("an empty index has the candidates %d", got)
	}
}

func TestCandidatesDoNotAllocate(t *testing.T) {
	x, src := filled(10_000)
	hash := src.Uint64()
	if n := testing.AllocsPerRun(100, func() {
		var room [4]uint64
		if len(x.Candidates(hash, room[:0])) != 1 {
			t.Error("the entry is gone")
		}
	}); n != 0 {
		t.Errorf("%v allocations, wanted none", n)
	}
}

func TestReadersSeeEveryEntryWhileShardsGrow(t *testing.T) {
	const n = 2000
	x := New()
	hash := func(i int) uint64 { return uint64(i) * 0x9e3779b97f4a7c15 >> shardBits } // all in shard 0
	x.Insert(hash(0), 0)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				if got := x.Candidates(hash(0), nil); !slices.Equal(got, []uint64{0}) {
					t.Errorf("candidates are %d, wanted 0", got)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1; i < n; i++ {
		x.Insert(hash(i), uint64(i))
	}
	for i := n - 1; i > 0; i-- {
		if !x.Delete(hash(i), uint64(i)) {
			t.Fatalf("entry %d is gone", i)
		}
	}
	close(done)
	readers.Wait()
}

func TestLoadShardRefusesWhatIsNoEntry(t *testing.T) {
	x := New()
	x.Insert(0, 7)
	if err := x.LoadShard(0, []uint64{1, 5 << locationBits}); err == nil {
		t.Error("an entry without a location was taken")
	}
	if got := x.Candidates(0, nil); !slices.Equal(got, []uint64{7}) {
		t.Errorf("the candidates are %d, wanted what was there before", got)
	}
}

func TestALocationOverTheLargestIsRefused(t *testing.T) {
	x := New()
	x.Insert(1, MaxLocation)
	if got := x.Candidates(1, nil); !slices.Equal(got, []uint64{MaxLocation}) {
		t.Errorf("the candidates are %d, wanted %d", got, uint64(MaxLocation))
	}
	defer func() {
		if recover() == nil {
			t.Error("Insert took a location that does not fit")
		}
	}()
	x.Insert(1, MaxLocation+1)
}

func BenchmarkCandidates(b *testing.B) {
	for _, n := range []int{1, 1_000_000} {
		b.Run(map[int]string{1: "ids=1", 1_000_000: "ids=1000000"}[n], func(b *testing.B) {
			x, _ := filled(n)
			hashes := make([]uint64, min(n, 1<<16))
			for i, src := 0, rand.NewPCG(1, 2); i < len(hashes); i++ {
				hashes[i] = src.Uint64()
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				var room [4]uint64
				if len(x.Candidates(hashes[i], room[:0])) == 0 {
					b.Fatal("the entry is gone")
				}
				if i++; i == len(hashes) {
					i = 0
				}
			}
		})
	}
}

func BenchmarkInsert(b *testing.B) {
	x, src := New(), rand.NewPCG(1, 2)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Insert(src.Uint64(), uint64(i)&MaxLocation)
	}
	b.ReportMetric(float64(x.Bytes())/float64(x.Len()), "bytes/key")
}
