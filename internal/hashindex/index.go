// Package hashindex finds where a key is kept in 8 bytes an entry, without
// keeping the key: it answers with the few places that a hash may be at, and the
// caller compares the key there.
//
// It is built for ten million keys: the tables hold no pointers, so the garbage
// collector does not look into them, and they grow one shard of many at a time
// by a fifth, so that no insert waits for a large copy. From a million keys on
// that is 9 to 11.1 bytes a key, at any size.
package hashindex

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// An entry, from the top bit down, is
//
//	24 bits  tag: the bits of the hash below those that choose the shard
//	40 bits  location + 1
//
// and 0 is an empty place. The shard's own bits need not be kept, and the tag
// alone gives an entry's home in its shard, so that a shard grows without the keys.
const (
	shardBits    = 10
	tagBits      = 24
	locationBits = 40

	shards       = 1 << shardBits
	locationMask = 1<<locationBits - 1

	// MaxLocation is the largest location that an entry holds.
	MaxLocation = 1<<locationBits - 2

	// leastPlaces is the size of a shard's first table.
	leastPlaces = 8
)

// Index is a hash index. One goroutine may change it while any number read it.
type Index struct {
	shards [shards]shard
}

// New returns an empty index, which takes about 60 KB.
func New() *Index { return new(Index) }

// Candidates appends to dst the location of every entry that may have been
// inserted with hash: all that were, and by chance (one in 2^34 for each entry
// there is) one that was not. It allocates only where dst has no room.
func (x *Index) Candidates(hash uint64, dst []uint64) []uint64 {
	s, tag := x.shard(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.n == 0 {
		return dst
	}
	at := s.home(tag)
	for far := 0; ; far++ {
		e := s.places[at]
		if e == 0 || s.distance(e, at) < far {
			return dst
		}
		if e>>locationBits == tag {
			dst = append(dst, e&locationMask-1)
		}
		if at++; at == len(s.places) {
			at = 0
		}
	}
}

// Insert adds an entry. A location over MaxLocation is a fault of the caller's.
func (x *Index) Insert(hash, loc uint64) {
	s, tag := x.shard(hash)
	e := entry(tag, loc)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(e)
}

// Move makes the entry of hash at location from point to the location to. It
// returns false if there is none.
func (x *Index) Move(hash, from, to uint64) bool {
	s, tag := x.shard(hash)
	e := entry(tag, to)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(entry(tag, from))
	if at < 0 {
		return false
	}
	s.places[at] = e
	return true
}

// Delete removes the entry of hash at location loc. It returns false if there
// is none.
func (x *Index) Delete(hash, loc uint64) bool {
	s, tag := x.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(entry(tag, loc))
	if at < 0 {
		return false
	}
	s.remove(at)
	return true
}

// Len returns how many entries there are.
func (x *Index) Len() int {
	n := 0
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.RLock()
		n += s.n
		s.mu.RUnlock()
	}
	return n
}

// Bytes returns the memory that the index takes.
func (x *Index) Bytes() int64 {
	n := int64(unsafe.Sizeof(*x))
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.RLock()
		n += int64(len(s.places)) * 8
		s.mu.RUnlock()
	}
	return n
}

// Shards returns how many shards there are.
func (x *Index) Shards() int { return shards }

// AppendShard appends the entries of shard i to dst, in the form that LoadShard takes.
func (x *Index) AppendShard(i int, dst []uint64) []uint64 {
	s := &x.shards[i]
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.places {
		if e != 0 {
			dst = append(dst, e)
		}
	}
	return dst
}

// Location returns the location of an entry that AppendShard returned.
func Location(entry uint64) uint64 { return entry&locationMask - 1 }

// LoadShard puts entries, which AppendShard returned, in the place of what shard
// i holds. It refuses what can be no entry, and then changes nothing.
func (x *Index) LoadShard(i int, entries []uint64) error {
	for n, e := range entries {
		if e&locationMask == 0 {
			return fmt.Errorf("entry %d of shard %d is %#016x, which holds no location", n, i, e)
		}
	}
	s := &x.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places, s.n = nil, 0
	if len(entries) > 0 {
		s.resize(len(entries) + len(entries)/6)
	}
	for _, e := range entries {
		s.insert(e)
	}
	return nil
}

// shard returns the shard of a hash, and its tag there.
func (x *Index) shard(hash uint64) (*shard, uint64) {
	return &x.shards[hash>>(64-shardBits)], hash << shardBits >> (64 - tagBits)
}

func entry(tag, loc uint64) uint64 {
	if loc > MaxLocation {
		panic(fmt.Sprintf("hashindex: location %d is over the largest, %d", loc, uint64(MaxLocation)))
	}
	return tag<<locationBits | (loc + 1)
}

// A shard is an open-addressed table with linear probing. Entries stand in the
// order of their homes (robin hood hashing): one that is further from its home
// takes the place of one that is nearer. So a search ends at the first entry
// that is nearer to its home than what is searched for would be, and the table
// works well when it is nine tenths full.
type shard struct {
	mu     sync.RWMutex // guards the entries: held while one is read or changed
	places []uint64
	n      int // places taken; at least one is always empty
}

// home is the place where a tag's entries want to be.
func (s *shard) home(tag uint64) int {
	return int(tag * uint64(len(s.places)) >> tagBits)
}

// distance is how many places behind its home the entry e at place at stands.
func (s *shard) distance(e uint64, at int) int {
	d := at - s.home(e>>locationBits)
	if d < 0 {
		d += len(s.places)
	}
	return d
}

// find returns the place of an entry, or -1.
func (s *shard) find(want uint64) int {
	if s.n == 0 {
		return -1
	}
	at := s.home(want >> locationBits)
	for far := 0; ; far++ {
		e := s.places[at]
		if e == want {
			return at
		}
		if e == 0 || s.distance(e, at) < far {
			return -1
		}
		if at++; at == len(s.places) {
			at = 0
		}
	}
}

// insert adds an entry, and makes room first if nine of ten places are taken.
func (s *shard) insert(e uint64) {
	if (s.n+1)*10 > len(s.places)*9 {
		s.resize(len(s.places) + len(s.places)/5)
	}
	s.put(e)
	s.n++
}

// put stores an entry in a table that has an empty place.
func (s *shard) put(e uint64) {
	at := s.home(e >> locationBits)
	for far := 0; ; far++ {
		was := s.places[at]
		if was == 0 {
			s.places[at] = e
			return
		}
		if d := s.distance(was, at); d < far {
			s.places[at], e, far = e, was, d
		}
		if at++; at == len(s.places) {
			at = 0
		}
	}
}

// remove empties a place and moves the entries behind it one nearer to their homes.
func (s *shard) remove(at int) {
	for {
		next := at + 1
		if next == len(s.places) {
			next = 0
		}
		e := s.places[next]
		if e == 0 || s.distance(e, next) == 0 {
			break
		}
		s.places[at] = e
		at = next
	}
	s.places[at] = 0
	s.n--
	if len(s.places) > leastPlaces && s.n < len(s.places)/3 {
		s.resize(len(s.places) / 2)
	}
}

// resize moves the entries to a table of n places, or of as many more as the
// allocator gives anyway.
func (s *shard) resize(n int) {
	old := s.places
	s.places = slices.Grow([]uint64(nil), max(n, leastPlaces))
	s.places = s.places[:cap(s.places)]
	clear(s.places)
	for _, e := range old {
		if e != 0 {
			s.put(e)
		}
	}
}
