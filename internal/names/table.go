package names

import (
	"slices"
	"strings"
)

// entry is a key, or a mark that the key was removed, which hides it in older runs.
type entry struct {
	key  string
	gone bool
}

func compareKey(e entry, key string) int { return strings.Compare(e.key, key) }

// chunkSize is how many entries a chunk of a table has at most.
const chunkSize = 512

// table is a sorted table in memory: chunks of sorted entries, in order, none empty.
type table struct {
	chunks [][]entry
	n      int
}

// chunk returns the chunk that a key belongs to; len(t.chunks) only if there is none.
func (t *table) chunk(key string) int {
	i, found := slices.BinarySearchFunc(t.chunks, key, func(c []entry, key string) int { return compareKey(c[0], key) })
	if !found && i > 0 {
		i--
	}
	return i
}

// put records that a key is there, or that it is gone.
func (t *table) put(key string, gone bool) {
	if len(t.chunks) == 0 {
		t.chunks, t.n = [][]entry{{{key, gone}}}, 1
		return
	}
	i := t.chunk(key)
	c := t.chunks[i]
	at, found := slices.BinarySearchFunc(c, key, compareKey)
	if found {
		c[at].gone = gone
		return
	}
	t.n++
	if len(c) == chunkSize {
		// Keys that arrive in order fill the chunks that they leave behind.
		half := chunkSize / 2
		if at == chunkSize {
			half = chunkSize - 1
		}
		rest := append(make([]entry, 0, chunkSize), c[half:]...)
		clear(c[half:])
		t.chunks[i] = c[:half]
		t.chunks = slices.Insert(t.chunks, i+1, rest)
		if c = c[:half]; at > half || at == half && key > rest[0].key {
			i, at, c = i+1, at-half, rest
		}
	}
	t.chunks[i] = slices.Insert(c, at, entry{key, gone})
}

// drop forgets a key.
func (t *table) drop(key string) {
	i := t.chunk(key)
	if i == len(t.chunks) {
		return
	}
	at, found := slices.BinarySearchFunc(t.chunks[i], key, compareKey)
	if !found {
		return
	}
	t.n--
	t.chunks[i] = slices.Delete(t.chunks[i], at, at+1)
	if len(t.chunks[i]) == 0 {
		t.chunks = slices.Delete(t.chunks, i, i+1)
	}
}

// from returns copies of at most limit entries with keys from key up to, but not
// including, to. An empty to means no upper bound.
func (t *table) from(key, to string, limit int) []entry {
	i := t.chunk(key)
	if i == len(t.chunks) {
		return nil
	}
	var out []entry
	at, _ := slices.BinarySearchFunc(t.chunks[i], key, compareKey)
	for ; i < len(t.chunks); i, at = i+1, 0 {
		for _, e := range t.chunks[i][at:] {
			if len(out) == limit || to != "" && e.key >= to {
				return out
			}
			out = append(out, e)
		}
	}
	return out
}

// each calls fn for every entry in order.
func (t *table) each(fn func(entry)) {
	for _, c := range t.chunks {
		for _, e := range c {
			fn(e)
		}
	}
}

// source gives entries in order.
type source interface {
	// entry is the current one, valid until advance; ok is false after the last.
	entry() (e entry, ok bool)
	advance() error
	close()
}

// slice is a source of entries in memory.
type slice struct {
	entries []entry
	at      int
}

func newSlice(entries []entry) *slice { return &slice{entries: entries} }

func (s *slice) entry() (entry, bool) {
	if s.at >= len(s.entries) {
		return entry{}, false
	}
	return s.entries[s.at], true
}

func (s *slice) advance() error { s.at++; return nil }
func (s *slice) close()         {}

// merge is a source that merges others. If several have the same key, the entry of
// the first of them counts.
type merge struct {
	sources []source
	current int // the source of the current entry; -1: there is none
}

func newMerge(sources []source) (*merge, error) {
	m := &merge{sources: sources}
	m.pick()
	return m, nil
}

// pick finds the first of the sources with the smallest key.
func (m *merge) pick() {
	m.current = -1
	var least string
	for i, s := range m.sources {
		if e, ok := s.entry(); ok && (m.current < 0 || e.key < least) {
			m.current, least = i, e.key
		}
	}
}

func (m *merge) entry() (entry, bool) {
	if m.current < 0 {
		return entry{}, false
	}
	return m.sources[m.current].entry()
}

// advance moves all sources past the current key.
func (m *merge) advance() error {
	e, _ := m.entry()
	key := strings.Clone(e.key)
	for _, s := range m.sources {
		if e, ok := s.entry(); ok && e.key == key {
			if err := s.advance(); err != nil {
				return err
			}
		}
	}
	m.pick()
	return nil
}

func (m *merge) close() {
	for _, s := range m.sources {
		s.close()
	}
}
