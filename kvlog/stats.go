package kvlog

import (
	"cmp"
	"slices"

	"clouddragon/kvlog/wal"
)

// holder is a segment that holds values or marks. Its figures only help to choose
// what to compact, so they may be a little off after a crash; see Values.Release.
type holder struct {
	seg     *wal.Segment
	ordinal int   // the first of those that it has
	live    int64 // bytes of records that the index points to
	total   int64 // bytes of all value records and marks
	marks   int64 // bytes of marks
	ends    ends  // of the live bytes
	damaged bool  // compaction met a bad record in it: it is never released
}

func (h *holder) keep(size, expires int64) {
	h.live += size
	h.total += size
	if expires != 0 {
		h.ends.add(expires, size)
	}
}

func (h *holder) drop(size, expires int64) {
	h.live -= size
	if expires != 0 {
		h.ends.drop(expires, size)
	}
}

// ends say, coarsely, when how many live bytes of a segment are over. Their
// number is bounded, so that no choice of ttls makes them large.
type ends []end // ascending

type end struct {
	at   int64 // in database time, ns
	size int64 // bytes that are over by then, and are not over by the end before it
}

const (
	endUnit = int64(64e9) // how finely ends are told apart, in ns
	maxEnds = 64
)

// roundUp returns the least end that is not before expires.
func roundUp(expires int64) int64 { return (expires/endUnit + 1) * endUnit }

func (e ends) find(at int64) (int, bool) {
	return slices.BinarySearchFunc(e, at, func(x end, at int64) int { return cmp.Compare(x.at, at) })
}

func (e *ends) add(expires, size int64) {
	at := roundUp(expires)
	i, ok := e.find(at)
	if ok {
		(*e)[i].size += size
		return
	}
	*e = slices.Insert(*e, i, end{at, size})
	if len(*e) > maxEnds {
		e.merge()
	}
}

// merge makes one of the two ends that are nearest to each other: the later one.
func (e *ends) merge() {
	s, best := *e, 1
	for i := 2; i < len(s); i++ {
		if s[i].at-s[i-1].at < s[best].at-s[best-1].at {
			best = i
		}
	}
	s[best].size += s[best-1].size
	*e = slices.Delete(s, best-1, best)
}

func (e *ends) drop(expires, size int64) {
	i, _ := e.find(roundUp(expires))
	if i == len(*e) {
		return
	}
	if (*e)[i].size -= size; (*e)[i].size <= 0 {
		*e = slices.Delete(*e, i, i+1)
	}
}

// over returns the bytes that are over at now.
func (e ends) over(now int64) int64 {
	var n int64
	for _, x := range e {
		if x.at > now {
			break
		}
		n += x.size
	}
	return n
}

// Segments returns the numbers of the segments that hold values or marks that
// are needed, as of one moment.
func (v *Values) Segments() map[uint64]bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	held := make(map[uint64]bool, len(v.byNumber))
	for n := range v.byNumber {
		held[n] = true
	}
	return held
}

// ValueStats are figures of the values.
type ValueStats struct {
	Keys       int    // in the index, those whose time is over included until they are swept
	Live       int64  // bytes of their records, but for those whose time is over
	Total      int64  // bytes of all value records and marks in the log
	IndexBytes int64  // memory of the index
	Reads      uint64 // values read
	Damaged    uint64 // records that were met and failed their checksum
}

// Stats returns the figures at now, in database time.
func (v *Values) Stats(now int64) ValueStats {
	s := ValueStats{Keys: v.index.Len(), IndexBytes: v.index.Bytes(), Reads: v.reads.Load(), Damaged: v.damaged.Load()}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, h := range v.byNumber {
		s.Live += h.live - h.ends.over(now)
		s.Total += h.total
	}
	return s
}
