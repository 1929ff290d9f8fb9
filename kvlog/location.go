package kvlog

import (
	"fmt"
	"math/bits"
	"slices"

	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// holder returns the holder of a segment, made if this is the first value there.
// It wants v.mu held.
func (v *Values) holder(number uint64) *holder {
	if h := v.byNumber[number]; h != nil {
		return h
	}
	h := &holder{seg: v.log.Segment(number)}
	n := v.span(h.seg.Size())
	var ok bool
	if h.ordinal, ok = v.free(n, min(v.maxHolders(), max(leastRound, 4*(v.taken+n)))); !ok {
		if h.ordinal, ok = v.free(n, v.maxHolders()); !ok {
			panic(fmt.Sprintf("kvlog: the log has more than the %d TiB that the index can point into", int64(hashindex.MaxLocation+1)*8>>40))
		}
	}
	v.last = h.ordinal + n - 1
	v.put(h)
	return h
}

// leastRound is how many ordinals are used, at least, before the first ones are
// used again.
const leastRound = 1 << 16

// free finds n free ordinals side by side, of the first so many.
func (v *Values) free(n, most int) (ordinal int, ok bool) {
	run, begin := 0, v.last+1
	if len(v.holders) == 0 {
		begin = 0
	}
	for i := range most + n {
		at := (begin + i) % most
		if at == 0 {
			run = 0
		}
		if at < len(v.holders) && v.holders[at] != nil {
			run = 0
			continue
		}
		if run++; run == n {
			return at - n + 1, true
		}
	}
	return 0, false
}

// maxHolders is how many ordinals there are.
func (v *Values) maxHolders() int { return 1 << (maxLocationBits - v.offsetBits) }

// span is how many ordinals a segment of that size takes.
func (v *Values) span(size int64) int { return spanOf(size, v.offsetBits) }

func spanOf(size int64, offsetBits int) int { return int((size/8-1)>>offsetBits) + 1 }

// chooseBits returns how many bits of a location are the place in a segment, for a
// log with segments of those sizes. As many as the largest needs, if that leaves
// enough ordinals for several times as many segments; else less, so that the large
// ones take several ordinals.
func chooseBits(sizes []int64) int {
	offsetBits := bits.Len64(uint64(slices.Max(sizes)-1) / 8)
	for ; offsetBits > bits.Len(wal.MinSegment/8); offsetBits-- {
		need := 0
		for _, size := range sizes {
			need += spanOf(size, offsetBits)
		}
		if need <= 1<<(maxLocationBits-offsetBits)/4 {
			break
		}
	}
	return offsetBits
}

// put makes a holder known under its ordinals. It wants v.mu held.
func (v *Values) put(h *holder) {
	n := v.span(h.seg.Size())
	if more := h.ordinal + n - len(v.holders); more > 0 {
		v.holders = append(v.holders, make([]*holder, more)...)
	}
	for i := range n {
		v.holders[h.ordinal+i] = h
	}
	v.taken += n
	v.byNumber[h.seg.Number()] = h
}

// drop is the opposite of put. It wants v.mu held.
func (v *Values) drop(h *holder) {
	n := v.span(h.seg.Size())
	clear(v.holders[h.ordinal:][:n])
	v.taken -= n
	delete(v.byNumber, h.seg.Number())
}

// at returns the holder that a location lies in, nil if there is none. It wants
// v.mu held.
func (v *Values) at(loc uint64) *holder {
	if i := loc >> v.offsetBits; i < uint64(len(v.holders)) {
		return v.holders[i]
	}
	return nil
}

// location is a place in a segment as the index has it, offset the way back.
func (v *Values) location(h *holder, off int64) uint64 {
	return uint64(h.ordinal)<<v.offsetBits + uint64(off/8)
}

func (v *Values) offset(h *holder, loc uint64) int64 {
	return int64(loc-uint64(h.ordinal)<<v.offsetBits) * 8
}
