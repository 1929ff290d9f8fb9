package slots

import (
	"errors"
	"fmt"
	"path"
	"sync"

	"clouddragon/internal/disk"
	"clouddragon/internal/hashindex"
)

// DefaultExtent is the unit, in bytes, in which tables are mapped and grow.
const DefaultExtent = 1 << 20

// Options say where the tables are.
type Options struct {
	FS     disk.FS
	Dir    string   // the data directory
	ID     [16]byte // the data directory's
	Extent int      // bytes, a multiple of 4096; 0: DefaultExtent
	// Read, if not nil, is called with the bytes of slots that Load has read since the last
	// call. It must not block.
	Read func(bytes int64)
}

func (o *Options) check() error {
	if o.Extent == 0 {
		o.Extent = DefaultExtent
	}
	if o.Extent < 0 || o.Extent%headerSize != 0 {
		return fmt.Errorf("an extent of %d bytes is not a multiple of %d", o.Extent, headerSize)
	}
	return nil
}

// Create makes the four table files, synced, with one extent of zeros each. It replaces
// what an earlier Create may have left. The files are durable only after a SyncDir of the
// directory.
func Create(o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	for class := range Classes {
		if err := createTable(o, class); err != nil {
			return fmt.Errorf("make the slot table %s: %w", path.Join(o.Dir, FileName(class)), err)
		}
	}
	return nil
}

// Tables are the four slot tables of a data directory and the index of their keys. Only
// one goroutine, the writer, may call Lookup, Alloc, Release and Apply; any may call the
// rest.
type Tables struct {
	Codec
	index  *hashindex.Index     // locks itself
	tables [len(Classes)]*table // set by Open; mu guards what they hold
	gaps   []Ref                // found by Load, for Rewrite: slots below the high-water mark that were never applied
	read   func(int64)          // Options.Read

	syncing sync.Mutex // held while the tables are synced

	mu     sync.RWMutex // guards the mapped slots and the fields of tables that say so; held for writing only while a durable batch is applied or new extents are published
	failed error        // the first failed sync or store
}

// Open opens and maps the table files. want is the least size of each in bytes, from the
// last checkpoint. If a file is missing or shorter, or has a bad header, the error is a
// *disk.Damage that says what was found and what was wanted. The tables must not be read
// before Load, nor changed before Rewrite.
func Open(o Options, want [4]int64) (*Tables, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	t := &Tables{Codec: Codec{o.ID}, index: hashindex.New(), read: o.Read}
	for class := range Classes {
		tab, err := openTable(o, class, want[class])
		if err != nil {
			for _, opened := range t.tables[:class] {
				err = errors.Join(err, opened.close())
			}
			return nil, err
		}
		t.tables[class] = tab
	}
	return t, nil
}

// Has reports whether the slot r lies within its file.
func (t *Tables) Has(r Ref) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return r.Number() < t.tables[r.Class()].capacity()
}

// Lookup finds a key by its hash. The payload aliases the mapping and is valid until the
// next Apply. Only the writer calls it.
func (t *Tables) Lookup(k Key, hash uint64) (r Ref, payload []byte, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.find(k, hash)
}

// KeyAt returns the key in a slot, which must be in use. Only the writer calls it.
func (t *Tables) KeyAt(r Ref) Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s, _ := split(t.tables[r.Class()].slot(r.Number()))
	return s.Key()
}

// Get appends a copy of a key's payload to dst. It returns false if the key is
// not there.
func (t *Tables) Get(k Key, hash uint64, dst []byte) ([]byte, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, payload, ok := t.find(k, hash)
	return append(dst, payload...), ok
}

// find requires t.mu to be held.
func (t *Tables) find(k Key, hash uint64) (Ref, []byte, bool) {
	var room [8]uint64
	for _, loc := range t.index.Candidates(hash, room[:0]) {
		r := refAt(loc)
		if s, _ := split(t.tables[r.Class()].slot(r.Number())); s.is(k) {
			return r, s.Payload, true
		}
	}
	return 0, nil, false
}

// Alloc allocates a slot of a class. It returns false if none is free; Grow makes room.
// Only the writer calls it.
func (t *Tables) Alloc(class int) (Ref, bool) {
	tab := t.tables[class]
	if last := len(tab.free) - 1; last >= 0 {
		n := tab.free[last]
		tab.free = tab.free[:last]
		return MakeRef(class, n), true
	}
	r := MakeRef(class, tab.next)
	if !t.Has(r) {
		return 0, false
	}
	tab.next++
	return r, true
}

// Release frees a slot that was allocated but not applied. Only the writer calls it.
func (t *Tables) Release(r Ref) {
	tab := t.tables[r.Class()]
	tab.free = append(tab.free, r.Number())
}

// Image is the new content of one slot, made by Encode or EncodeFree.
type Image struct {
	Ref   Ref
	Bytes []byte
}

// Apply stores the images of a durable batch, in order. Readers see all of them or none.
// It updates the index and the free lists by comparing each image with what the slot held
// before. Only the writer calls it.
func (t *Tables) Apply(images []Image) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range images {
		im := &images[i]
		tab, n := t.tables[im.Ref.Class()], im.Ref.Number()
		// Slots that were allocated and not applied, or not yet, are now below the mark
		// and must hold an image: that of a free slot.
		for ; tab.used < n; tab.used++ {
			t.note(tab, t.storeFree(MakeRef(im.Ref.Class(), tab.used)))
		}
		var old []byte
		if n < tab.used {
			old = tab.slot(n)
		}
		tab.used = max(tab.used, n+1)
		t.reindex(im.Ref, old, im.Bytes)
		t.note(tab, tab.store(n, im.Bytes))
	}
}

// reindex updates the index and the free list for a slot that changes from its old image,
// nil if it has none, to a new one.
func (t *Tables) reindex(r Ref, old, image []byte) {
	was, is := old != nil && old[4] != freeKind, image[4] != freeKind
	if was && is && sameKey(old, image) {
		return
	}
	tab := t.tables[r.Class()]
	if was {
		s, _ := split(old)
		t.index.Delete(s.hash(), location(r))
		tab.live--
		if !is {
			tab.free = append(tab.free, r.Number())
		}
	}
	if is {
		s, _ := split(image)
		t.index.Insert(s.hash(), location(r))
		tab.live++
	}
}

// Retry stores the images for which the disk had no room. The error is ErrNoRoom, with its
// cause, if there is still no room for one of them, or ErrSync.
func (t *Tables) Retry() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tab := range t.tables {
		err := tab.retry()
		if disk.IsFull(err) {
			return fmt.Errorf("%w: %s: %w", ErrNoRoom, tab.name, err)
		}
		t.note(tab, err)
	}
	return t.failed
}

// note records the first failed store. t.mu must be held.
func (t *Tables) note(tab *table, err error) {
	if err != nil && t.failed == nil {
		t.failed = fmt.Errorf("%w: %s: %v", ErrSync, tab.name, err)
	}
}

// Err returns an error if what was applied may be lost. The tables must not be used for
// answers then.
func (t *Tables) Err() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.failed
}

func (t *Tables) storeFree(r Ref) error {
	image := make([]byte, r.Size())
	t.EncodeFree(image, r)
	return t.tables[r.Class()].store(r.Number(), image)
}

// Sizes returns the size of each file in bytes, for a checkpoint.
func (t *Tables) Sizes() [4]int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var sizes [4]int64
	for i, tab := range t.tables {
		sizes[i] = tab.fileSize(len(tab.extents))
	}
	return sizes
}

// Used returns each table's high-water mark, for a checkpoint. It must be called before
// Sync: slots that were skipped when a mark was raised have images that are not in the log.
func (t *Tables) Used() [4]uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var used [4]uint64
	for i, tab := range t.tables {
		used[i] = tab.used
	}
	return used
}

// Capacity returns how many slots the file of a class has.
func (t *Tables) Capacity(class int) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tables[class].capacity()
}

// Free returns how many slots of a class are free, not counting those allocated since the
// last Apply.
func (t *Tables) Free(class int) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tables[class].capacity() - t.tables[class].live
}

// Stats are the figures of the tables.
type Stats struct {
	Classes    [4]ClassStats
	IndexBytes int64 // memory of the index
}

// ClassStats are the figures of one table.
type ClassStats struct {
	Capacity  uint64 // slots in the file
	Used      uint64 // slots in use
	FileBytes int64
}

// Stats returns the current figures.
func (t *Tables) Stats() Stats {
	s := Stats{IndexBytes: t.index.Bytes()}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i, tab := range t.tables {
		s.Classes[i] = ClassStats{
			Capacity:  tab.capacity(),
			Used:      tab.live,
			FileBytes: tab.fileSize(len(tab.extents)),
		}
	}
	return s
}

// Close unmaps and closes the files, synced or not. The tables must not be used
// afterwards.
func (t *Tables) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, tab := range t.tables {
		errs = append(errs, tab.close())
	}
	return errors.Join(errs...)
}
