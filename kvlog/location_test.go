package kvlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"clouddragon/kvlog/wal"
)

// However many segments there are, and whatever the size of new ones, the index
// can point into all of them, and into several times as many.
func TestLocationsReachEverySegment(t *testing.T) {
	for _, c := range []struct {
		small   int   // segments of 64 KiB
		largest int64 // bytes of a new one
	}{
		{1, wal.MinSegment}, {100, 64 << 20}, {1, wal.MaxSegment}, {8_191, wal.MaxSegment}, {9_000, wal.MaxSegment}, {1_000_000, wal.MaxSegment},
	} {
		sizes := []int64{c.largest}
		for range c.small {
			sizes = append(sizes, 64<<10)
		}
		offsetBits := chooseBits(sizes)
		need := 0
		for _, size := range sizes {
			need += spanOf(size, offsetBits)
		}
		if most := 1 << (maxLocationBits - offsetBits); need > most/4 {
			t.Errorf("%d segments of 64 KiB and one of %d: they take %d ordinals of %d", c.small, c.largest, need, most)
		}
	}
}

// A segment that needs several ordinals is indexed like any other: its values are found,
// saved, loaded and compacted, and it is released, whatever its neighbours are.
func TestASegmentMayTakeSeveralOrdinals(t *testing.T) {
	r := newValuesRig(t)
	r.v.offsetBits = 10 // 8 KiB, an eighth of a segment
	state := map[string]string{}
	check := func(v *Values) {
		t.Helper()
		for i := range 100 {
			r.want(v, fmt.Sprint(i), state[fmt.Sprint(i)])
		}
	}
	var seen []uint64
	for i := range 2_000 {
		id := fmt.Sprint(rand.IntN(100))
		state[id] = strings.Repeat(fmt.Sprint(i, " "), 1+rand.IntN(300))
		r.set(id, state[id], 0)
		if i%500 > 0 {
			continue
		}
		check(r.v)
		r.save(r.end)
		v, err := r.reopen(r.disk.Clone(), r.end)
		if err != nil {
			t.Fatal(err)
		}
		if v.offsetBits != r.v.offsetBits {
			t.Errorf("the snapshot has %d bits, it was loaded with %d", r.v.offsetBits, v.offsetBits)
		}
		check(v)
		for number := range r.v.Segments() {
			seen = append(seen, number)
			if number < r.end.Segment {
				r.compact(number)
				if r.v.Segments()[number] {
					t.Errorf("segment %d is not released", number)
				}
			}
		}
		check(r.v)
	}
	taken := 0
	for _, h := range r.v.byOrdinal {
		if h != nil {
			taken++
		}
	}
	if len(seen) < 10 || taken != 8*len(r.v.byNumber) || taken != r.v.taken {
		t.Errorf("%d segments came and went; %d hold values, with %d ordinals, counted as %d", len(seen), len(r.v.byNumber), taken, r.v.taken)
	}
}

// compact moves what is live in a segment to the end of the log, and releases it.
func (r *valuesRig) compact(number uint64) {
	r.t.Helper()
	err := r.v.Survey(number, func() int { return 4096 }, func(moves []Move) error {
		var b wal.Batch
		var steps []Step
		for _, m := range moves {
			at := b.Len()
			copy(b.Add(TypeValue, len(m.Body)), m.Body)
			steps = append(steps, Step{Hash: m.Hash, At: at, Size: m.Size, Old: Found{OK: true, Loc: m.Loc, Size: m.Size}})
		}
		r.apply(&b, steps...)
		return nil
	}, func(err error) { r.t.Error(err) })
	if err == nil {
		err = r.v.Release(number)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// Ordinals of freed segments are used again, so that the table of ordinals does not
// grow for as long as the server runs.
func TestOrdinalsAreUsedAgain(t *testing.T) {
	r := newValuesRig(t)
	v := r.v
	for range 3 * leastRound {
		v.mu.Lock()
		h := v.statsOf(r.first.Segment)
		v.drop(h)
		v.mu.Unlock()
	}
	if len(v.byOrdinal) > leastRound || v.taken != 0 {
		t.Errorf("the table has %d places, of which %d are taken", len(v.byOrdinal), v.taken)
	}
}
