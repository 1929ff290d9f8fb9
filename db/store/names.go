package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/names"
	"clouddragon/slots"
)

// The index of names has the key of every thing that exists, except most of the server's own: see
// commit.IsPublished. Keys of removed things may stay
// in it for a while, so a list looks each key up. After a batch is applied, the index learns
// what it has touched. At a checkpoint the index is saved before CHECKPOINT is written. So a
// start finds everything before the checkpoint in the saved index, and adds what the log holds
// after the checkpoint.

// nameIndex is the index of names and how it is kept.
type nameIndex struct {
	*names.Index
	lost     error         // why it has to be rebuilt at the start; nil: it is good
	ready    atomic.Bool   // it has the key of every thing
	told     atomic.Uint64 // keys that the current rebuild has added
	wake     chan struct{}
	rebuilds atomic.Uint64
}

// NameStats are the figures of the index of names.
type NameStats struct {
	names.Stats
	Rebuilding bool   // it is rebuilt: nothing is listed until then
	Told       uint64 // keys that the last rebuild has told it so far
	Rebuilds   uint64 // since Open
}

func (n *nameIndex) stats() NameStats {
	return NameStats{Stats: n.Stats(), Rebuilding: !n.ready.Load(), Told: n.told.Load(), Rebuilds: n.rebuilds.Load()}
}

// NameKey is the key of a thing in the index: the account, a NUL, the kind (0 for a value),
// and the id.
func NameKey(kind uint8, acc, id string) string {
	b := make([]byte, 0, len(acc)+2+len(id))
	b = append(b, acc...)
	b = append(b, 0, kind)
	return string(append(b, id...))
}

// isNamed reports whether things with that id are in the index.
func isNamed(id string) bool { return id != "" && commit.IsPublished(id) }

// openNames opens the index and updates it to the recovered state.
func (d *directory) openNames(o *Options) *nameIndex {
	n := &nameIndex{wake: make(chan struct{}, 1)}
	var seq uint64
	var err error
	n.Index, seq, err = names.Open(names.Options{FS: o.FS, Dir: path.Join(o.Dir, "names"), ID: d.last.ID})
	end := d.tail.End.Seq
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.from == 0:
		n.Complete() // the log has been read from its beginning, so it has every key
		if err = nil; end == 0 {
			n.ready.Store(true) // a new directory
			return n
		}
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("none was saved yet")
	case err == nil:
		if err = d.staleNames(seq); err != nil {
			err = errors.Join(err, n.Reset())
		}
	}
	if err != nil {
		n.lost = err
		return n
	}
	for _, key := range d.seen {
		n.Add(key)
	}
	n.ready.Store(true)
	d.seen = nil
	// Before CHECKPOINT says that this part of the log is not needed any more.
	if err := n.Save(end); err != nil {
		warnOrError(o, err, namesUnsaved)
	}
	return n
}

// staleNames returns why a saved index of names does not match the log; nil: it does. seq is
// the last batch that the index has.
func (d *directory) staleNames(seq uint64) error {
	if end := d.tail.End.Seq; seq < d.from || seq > end {
		return fmt.Errorf("it ends with batch %d, CHECKPOINT with %d and the log with %d", seq, d.from, end)
	}
	return nil
}

// see notes a key in the log after the checkpoint.
func (d *directory) see(kind uint8, acc, id string) {
	if isNamed(id) {
		d.seen = append(d.seen, NameKey(kind, acc, id))
	}
}

// saveNames saves the index. A failure costs a rebuild at the next start.
func (s *Store) saveNames(seq uint64) {
	if err := s.names.Save(seq); err != nil {
		s.warnOrError(err, namesUnsaved)
	}
}

const namesUnsaved = "the index of names is not saved; the next start will rebuild it"

// AddName tells the index that a new thing exists. It is called once the thing is applied.
func (s *Store) AddName(kind uint8, acc, id string) {
	if isNamed(id) {
		s.names.Add(NameKey(kind, acc, id))
	}
}

// RemoveName tells the index that a thing no longer exists.
func (s *Store) RemoveName(kind uint8, acc, id string) {
	if isNamed(id) {
		s.names.Remove(NameKey(kind, acc, id))
	}
}

// KeepNames makes the background write the index to disk if its part in memory is large.
func (s *Store) KeepNames() {
	if s.names.Full() {
		wake(s.names.wake)
	}
}

// Names returns the index of names. ok is false while it is rebuilt; told is how many
// keys it has then.
func (s *Store) Names() (x *names.Index, told uint64, ok bool) {
	return s.names.Index, s.names.told.Load(), s.names.ready.Load()
}

// NamesComplete reports whether the index is not being rebuilt. While it is, AddName
// has to be called for everything that is touched.
func (s *Store) NamesComplete() bool { return s.names.ready.Load() }

// NamesDamaged reports damage in the index, which is then rebuilt.
func (s *Store) NamesDamaged(why error) {
	if s.names.ready.CompareAndSwap(true, false) {
		s.o.Log.Warn("the index of names is damaged", "err", why)
		wake(s.names.wake)
	}
}

// keepNames writes and merges runs, and rebuilds the index if needed.
func (s *Store) keepNames() {
	defer s.background.Done()
	n := s.names
	for {
		if !n.ready.Load() && !s.rebuildNames() {
			return
		}
		if n.Full() && s.mayCache() {
			if err := n.Save(0); err != nil {
				s.warnOrError(err, "a part of the index of names is not written; it stays in memory")
			}
		}
		for s.open() && s.mayCache() {
			did, err := n.Merge()
			if errors.Is(err, names.ErrDamaged) {
				s.NamesDamaged(err)
			} else if err != nil {
				s.warnOrError(err, "the index of names is not merged; listing gets slower")
			}
			if err != nil || !did {
				break
			}
		}
		if !s.wait(n.wake) {
			return
		}
	}
}

// mayCache reports whether files may grow that only make a start or a list faster. On a
// full disk they would take the blocks of a segment that compaction has just freed, and
// the log would lack them for the next one.
func (s *Store) mayCache() bool { return !s.room.full.Load() }

// open reports whether the store is not closing.
func (s *Store) open() bool {
	select {
	case <-s.closing:
		return false
	default:
		return true
	}
}

// rebuildNames adds all keys to the index again, while commits go on. It returns false if
// the store closes.
func (s *Store) rebuildNames() bool {
	n, began := s.names, time.Now()
	why := n.lost
	if why == nil {
		why = errors.New("it was damaged")
	}
	n.lost = nil
	n.rebuilds.Add(1)
	n.told.Store(0)
	s.o.Log.Info("the index of names is rebuilt; until then nothing is listed", "why", why)
	if err := n.Reset(); err != nil {
		s.warnOrError(err, "the old index of names is not removed")
	}
	tell := func(kind uint8, acc, id string) bool {
		s.AddName(kind, acc, id)
		if n.told.Add(1)%1024 == 0 && n.Full() {
			if err := n.Save(0); err != nil {
				s.warnOrError(err, "a part of the index of names is not written; it stays in memory")
			}
		}
		return s.open()
	}
	var keys []slots.Key
	for class := range slots.Classes {
		for from, more := uint64(0), true; more; {
			keys, from, more = s.Tables.AppendKeys(keys[:0], class, from)
			for _, k := range keys {
				if !tell(k.Kind, k.Acc, k.ID) {
					return false
				}
			}
		}
	}
	unread, ok := s.Values.EachName(func(acc, id string) bool { return tell(0, acc, id) })
	if !ok {
		return false
	}
	// Names that were touched meanwhile were added by the batches that touched them.
	seq := s.writer.Position().Log.Seq
	n.Complete()
	s.saveNames(seq)
	n.ready.Store(true)
	s.o.Log.Info("the index of names is rebuilt", "keys", n.told.Load(), "unreadable", unread, "took", time.Since(began))
	return true
}
