// Package names keeps keys in bytewise order, so that they can be listed in pages. The
// keys are in sorted runs on disk, of which memory holds only where each block begins,
// and in a sorted table in memory, which has the changes since the last run was
// written. The package does not know what the keys name.
//
// The index is a cache. Its user can supply all keys again, so a damaged file costs
// only a rebuild: Page returns ErrDamaged, and Reset empties the index. No damage here
// keeps the server from starting.
//
// The index can be changed and read while a run is written or runs are merged.
package names

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"clouddragon/internal/disk"
)

// ErrDamaged is returned when a file of the index fails its checks or cannot be read.
var ErrDamaged = errors.New("the index of names is damaged")

// Options say where an index is.
type Options struct {
	FS  disk.FS
	Dir string   // holds the index and nothing else; created if missing
	ID  [16]byte // of the data directory
	// Memory is how many keys the table in memory may have before Full says that it
	// is time to save; 0: 65,536.
	Memory int
	// Block is about how many bytes of keys a block of a run holds; 0: 32 KiB.
	Block int
}

// Index is an open index. Any goroutine may call its methods.
type Index struct {
	o Options

	saving   sync.Mutex // held while files change; guards what follows
	next     uint64     // number of the next run
	seq      uint64     // as in the manifest
	complete bool       // the index holds all keys, so that a manifest may be written

	mu     sync.RWMutex // guards what follows; held for a moment, never during I/O
	mem    *table
	frozen *table // what is being written to a run; nil: nothing is
	runs   []*run // the newest first
}

// Open opens the index. seq is that of the last Save. If the error is not nil, it says
// why the saved index cannot be used: x is empty then, and all keys have to be added.
func Open(o Options) (x *Index, seq uint64, err error) {
	if o.Memory == 0 {
		o.Memory = 1 << 16
	}
	if o.Block == 0 {
		o.Block = 32 << 10
	}
	x = &Index{o: o, mem: new(table), next: 1}
	x.saving.Lock()
	defer x.saving.Unlock()
	err = x.load()
	if err == nil {
		x.complete = true
		return x, x.seq, nil
	}
	return x, 0, errors.Join(err, x.reset())
}

// load reads the manifest and opens the runs that it names.
func (x *Index) load() error {
	if err := x.o.FS.MkdirAll(x.o.Dir); err != nil {
		return err
	}
	if err := x.o.FS.SyncDir(path.Dir(x.o.Dir)); err != nil {
		return err
	}
	m, err := readManifest(&x.o)
	if err != nil {
		return err
	}
	for _, r := range m.runs {
		opened, err := openRun(&x.o, r)
		if err != nil {
			return err
		}
		x.runs = append(x.runs, opened)
		x.next = max(x.next, r.number+1)
	}
	x.seq = m.seq
	return x.clean()
}

// clean deletes the files that do not belong to the index.
func (x *Index) clean() error {
	known := map[string]bool{manifestName: true}
	for _, r := range x.runs {
		known[runName(r.number)] = true
	}
	files, err := x.o.FS.ReadDir(x.o.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !known[f] {
			if err := x.remove(f); err != nil {
				return err
			}
		}
		var n uint64
		if _, err := fmt.Sscanf(f, runFormat, &n); err == nil {
			x.next = max(x.next, n+1)
		}
	}
	return nil
}

func (x *Index) remove(name string) error {
	if err := x.o.FS.Remove(path.Join(x.o.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Reset empties the index and its files. Until Complete is called, a start finds it
// empty.
func (x *Index) Reset() error {
	x.saving.Lock()
	defer x.saving.Unlock()
	return x.reset()
}

// reset requires saving to be held.
func (x *Index) reset() error {
	x.complete, x.seq = false, 0
	x.mu.Lock()
	old := x.runs
	x.mem, x.frozen, x.runs = new(table), nil, nil
	x.mu.Unlock()
	err := x.remove(manifestName)
	if err == nil {
		err = x.o.FS.SyncDir(x.o.Dir) // before the runs that it names are removed
	}
	for _, r := range old {
		err = errors.Join(err, r.release())
	}
	return errors.Join(err, x.clean())
}

// Complete marks the index as complete: all keys have been added.
func (x *Index) Complete() {
	x.saving.Lock()
	defer x.saving.Unlock()
	x.complete = true
}

// Add adds a key, which may be there already. A key has at most maxKey bytes.
func (x *Index) Add(key string) { x.put(key, false) }

// Remove removes a key, which need not be there.
func (x *Index) Remove(key string) { x.put(key, true) }

func (x *Index) put(key string, gone bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if gone && x.frozen == nil && len(x.runs) == 0 {
		x.mem.drop(key)
		return
	}
	x.mem.put(key, gone)
}

// RemoveIf removes a key unless keep, which is called with the index locked, returns
// true. So a caller that first makes a key exist and then adds it never loses it.
func (x *Index) RemoveIf(key string, keep func() bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !keep() {
		x.mem.put(key, true)
	}
}

// Full reports whether the table in memory is large enough that Save is due.
func (x *Index) Full() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mem.n >= x.o.Memory
}

// Page appends to dst at most limit keys, from the key from up to, but not including,
// to. An empty to means no upper bound. If there are fewer than limit, these are all.
func (x *Index) Page(dst []string, from, to string, limit int) ([]string, error) {
	for limit > 0 {
		n := len(dst)
		next, err := x.piece(&dst, from, to, limit)
		if err != nil {
			return dst, err
		}
		if limit -= len(dst) - n; next == "" {
			break
		}
		from = next
	}
	return dst, nil
}

// piece appends a part of a page, as far as the entries go that it copied from the
// table in memory. next is where the next piece begins, "" if there is none.
func (x *Index) piece(dst *[]string, from, to string, limit int) (next string, err error) {
	const most = 4096
	take := min(limit, most)
	x.mu.RLock()
	sources := []source{newSlice(x.mem.from(from, to, take))}
	if x.frozen != nil {
		sources = append(sources, newSlice(x.frozen.from(from, to, take)))
	}
	runs := x.runs
	for _, r := range runs {
		r.refs.Add(1)
	}
	x.mu.RUnlock()
	defer func() {
		for _, r := range runs {
			err = errors.Join(err, r.release())
		}
	}()
	end := to
	for _, s := range sources { // those in memory
		if all := s.(*slice).entries; len(all) == take {
			if behind := all[take-1].key + "\x00"; end == "" || behind < end {
				end, next = behind, behind
			}
		}
	}
	for _, r := range runs {
		s, err := r.seek(from)
		if err != nil {
			return "", err
		}
		sources = append(sources, s)
	}
	m, err := newMerge(sources)
	if err != nil {
		return "", err
	}
	defer m.close()
	for limit > 0 {
		e, ok := m.entry()
		if !ok || end != "" && e.key >= end {
			return next, nil
		}
		if !e.gone {
			*dst = append(*dst, strings.Clone(e.key))
			limit--
		}
		if err := m.advance(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// Stats are the figures of an index.
type Stats struct {
	Runs   int
	Memory int   // keys of the table in memory
	Bytes  int64 // of memory, without the table
	Disk   int64 // bytes on disk
}

// Stats returns the current figures.
func (x *Index) Stats() Stats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := Stats{Runs: len(x.runs), Memory: x.mem.n}
	for _, r := range x.runs {
		s.Bytes += r.bytes()
		s.Disk += r.size
	}
	return s
}

// Close closes the files. The index must not be used afterwards.
func (x *Index) Close() error {
	x.saving.Lock()
	defer x.saving.Unlock()
	x.mu.Lock()
	runs := x.runs
	x.runs = nil
	x.mu.Unlock()
	var err error
	for _, r := range runs {
		err = errors.Join(err, r.release())
	}
	return err
}
