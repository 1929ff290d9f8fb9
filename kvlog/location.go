package kvlog

import (
	"fmt"
	"math/bits"
	"slices"

	"clouddragon/internal/hashindex"
	"clouddragon/kvlog/wal"
)

// A location, as the index stores it, is an ordinal and the offset of a record in units
// of 8 bytes. A segment has an ordinal, a small number, while it holds values. If the
// offsets in a segment need more than offsetBits, it has several consecutive ordinals.

// statsOf returns the figures of a segment, which gets an ordinal if it has none
// yet. v.mu must be held.
func (v *Values) statsOf(number uint64) *segmentStats {
	if h := v.byNumber[number]; h != nil {
		return h
	}
	h := &segmentStats{seg: v.log.Segment(number)}
	n := v.span(h.seg.Size())
	var ok bool
	if h.ordinal, ok = v.free(n, min(v.maxOrdinals(), max(leastRound, 4*(v.taken+n)))); !ok {
		if h.ordinal, ok = v.free(n, v.maxOrdinals()); !ok {
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

// free finds n consecutive free ordinals among the first most of them.
func (v *Values) free(n, most int) (ordinal int, ok bool) {
	run, begin := 0, v.last+1
	if len(v.byOrdinal) == 0 {
		begin = 0
	}
	for i := range most + n {
		at := (begin + i) % most
		if at == 0 {
			run = 0
		}
		if at < len(v.byOrdinal) && v.byOrdinal[at] != nil {
			run = 0
			continue
		}
		if run++; run == n {
			return at - n + 1, true
		}
	}
	return 0, false
}

// maxOrdinals returns how many ordinals there are.
func (v *Values) maxOrdinals() int { return 1 << (maxLocationBits - v.offsetBits) }

// span returns how many ordinals a segment of that size takes.
func (v *Values) span(size int64) int { return spanOf(size, v.offsetBits) }

func spanOf(size int64, offsetBits int) int { return int((size/8-1)>>offsetBits) + 1 }

// chooseBits returns how many bits of a location are the offset in a segment, for a
// log with segments of those sizes. It returns as many as the largest one needs if
// that leaves ordinals for four times as many segments. Otherwise it returns fewer,
// and large segments take several ordinals.
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

// put assigns ordinals to a segment. v.mu must be held.
func (v *Values) put(h *segmentStats) {
	n := v.span(h.seg.Size())
	if more := h.ordinal + n - len(v.byOrdinal); more > 0 {
		v.byOrdinal = append(v.byOrdinal, make([]*segmentStats, more)...)
	}
	for i := range n {
		v.byOrdinal[h.ordinal+i] = h
	}
	v.taken += n
	v.byNumber[h.seg.Number()] = h
}

// drop frees a segment's ordinals. v.mu must be held.
func (v *Values) drop(h *segmentStats) {
	n := v.span(h.seg.Size())
	clear(v.byOrdinal[h.ordinal:][:n])
	v.taken -= n
	delete(v.byNumber, h.seg.Number())
}

// at returns the segment that a location lies in, nil if there is none. v.mu must be
// held.
func (v *Values) at(loc uint64) *segmentStats {
	if i := loc >> v.offsetBits; i < uint64(len(v.byOrdinal)) {
		return v.byOrdinal[i]
	}
	return nil
}

// location returns the location of a record at an offset in bytes.
func (v *Values) location(h *segmentStats, off int64) uint64 {
	return uint64(h.ordinal)<<v.offsetBits + uint64(off/8)
}

// offset returns the offset in bytes of a location in a segment.
func (v *Values) offset(h *segmentStats, loc uint64) int64 {
	return int64(loc-uint64(h.ordinal)<<v.offsetBits) * 8
}
