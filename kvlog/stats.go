package kvlog

import (
	"cmp"
	"slices"

	"clouddragon/kvlog/wal"
)

// segmentStats are a segment that holds values or tombstones, and its figures.
// These only help to choose what to compact, so they may be slightly wrong after a
// crash; see Values.Release. Values.mu guards them.
type segmentStats struct {
	seg        *wal.Segment
	ordinal    int      // its first ordinal; see location.go
	live       int64    // bytes of records that the index points to
	total      int64    // bytes of the records of all values and tombstones
	tombstones int64    // bytes of tombstones' records
	expiries   expiries // of the live bytes
	damaged    bool     // compaction found a bad record, so the segment is never released
}

// keep counts a record to which the index now points.
func (h *segmentStats) keep(size, expires int64) {
	h.live += size
	h.total += size
	if expires != 0 {
		h.expiries.add(expires, size)
	}
}

// drop counts a record to which the index no longer points.
func (h *segmentStats) drop(size, expires int64) {
	h.live -= size
	if expires != 0 {
		h.expiries.drop(expires, size)
	}
}

// expiries is a coarse histogram of when live bytes expire. It has at most
// maxExpiries entries, whatever TTLs clients choose.
type expiries []expiry // ascending

type expiry struct {
	at   int64 // in database time, ns
	size int64 // bytes that expire by then, and after the expiry before it
	from int64 // when the first of them expires; a snapshot does not store it, loading sets it to at
}

const (
	expiryUnit  = int64(1e9) // the resolution of a histogram with room, in ns
	maxExpiries = 64
)

// roundUp returns the first multiple of expiryUnit after expires.
func roundUp(expires int64) int64 { return (expires/expiryUnit + 1) * expiryUnit }

func (e expiries) find(at int64) (int, bool) {
	return slices.BinarySearchFunc(e, at, func(x expiry, at int64) int { return cmp.Compare(x.at, at) })
}

func (e *expiries) add(expires, size int64) {
	at := roundUp(expires)
	i, _ := e.find(at)
	if i < len(*e) && (*e)[i].from <= at {
		(*e)[i].size += size
		return
	}
	*e = slices.Insert(*e, i, expiry{at: at, size: size, from: at})
	if len(*e) > maxExpiries {
		e.merge()
	}
}

// merge merges the two neighbours that together cover the shortest time. No entry then
// covers more than a thirty-second of the whole time: entries do not overlap, so the spans
// of all pairs of neighbours add up to at most twice the whole.
func (e *expiries) merge() {
	s, best := *e, 1
	for i := 2; i < len(s); i++ {
		if s[i].at-s[i-1].from < s[best].at-s[best-1].from {
			best = i
		}
	}
	s[best].size += s[best-1].size
	s[best].from = s[best-1].from
	*e = slices.Delete(s, best-1, best)
}

func (e *expiries) drop(expires, size int64) {
	i, _ := e.find(roundUp(expires))
	if i == len(*e) {
		return
	}
	if (*e)[i].size -= size; (*e)[i].size <= 0 {
		*e = slices.Delete(*e, i, i+1)
	}
}

// expired returns the bytes that have expired at now.
func (e expiries) expired(now int64) int64 {
	var n int64
	for _, x := range e {
		if x.at > now {
			break
		}
		n += x.size
	}
	return n
}

// Segments returns the numbers of the segments that hold values or tombstones and
// were not released. Any goroutine may call it.
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
	Keys       int    // in the index; expired ones count until they are swept
	Live       int64  // bytes of their records, without expired ones
	Total      int64  // bytes of the records of all values and tombstones in the log
	IndexBytes int64  // memory of the index
	Reads      uint64 // values read
	Damaged    uint64 // records that could not be read or failed their checksum, each time
}

// Stats returns the figures at now, in database time. Any goroutine may call it.
func (v *Values) Stats(now int64) ValueStats {
	s := ValueStats{Keys: v.index.Len(), IndexBytes: v.index.Bytes(), Reads: v.reads.Load(), Damaged: v.damaged.Load()}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, h := range v.byNumber {
		s.Live += h.live - h.expiries.expired(now)
		s.Total += h.total
	}
	return s
}
