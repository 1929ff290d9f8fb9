package slots

import (
	"fmt"

	"clouddragon/internal/disk"
)

// readAtOnce is how many slots Load reads between two calls of Options.Read.
const readAtOnce = 4096

// Load reads every slot below the high-water marks once, and builds the index and the
// free lists. used are the checkpoint's high-water marks. replayed has the last image of
// each slot in the log after the checkpoint: these override what the file holds, and
// raise the high-water marks. Load calls damage for every slot that fails its checks, for
// every duplicate key, and for a slot beyond the end of its file. It changes nothing on
// disk.
func (t *Tables) Load(used [4]uint64, replayed map[Ref][]byte, damage func(*disk.Damage)) {
	l := loader{Tables: t, replayed: replayed, damage: damage}
	marks := used
	for r := range replayed {
		if mark := &marks[r.Class()]; t.Has(r) {
			*mark = max(*mark, r.Number()+1)
		} else {
			l.report(r, "the log has this slot, but it lies beyond the end of the file")
		}
	}
	for class, tab := range t.tables {
		if most := tab.capacity(); used[class] > most {
			l.report(MakeRef(class, most), fmt.Sprintf("the file ends with %d slots, wanted %d", most, used[class]))
			marks[class] = most
		}
		tab.used, tab.next = marks[class], marks[class]
		// The last on the free list is the first to be taken: the lowest.
		for n := tab.used; n > 0; n-- {
			l.load(MakeRef(class, n-1), n <= used[class])
			if n%readAtOnce == 1 && t.read != nil {
				t.read(int64(min(readAtOnce, tab.used-n+1)) * int64(Classes[class]))
			}
		}
	}
}

// loader is one run of Load.
type loader struct {
	*Tables
	replayed map[Ref][]byte
	damage   func(*disk.Damage)
}

func (l *loader) report(r Ref, what string) {
	l.damage(&disk.Damage{File: FileName(r.Class()), Offset: r.offset(), What: what})
}

// image returns what a slot holds after Rewrite.
func (l *loader) image(r Ref) (image []byte, logged bool) {
	if image, logged = l.replayed[r]; logged {
		return image, true
	}
	return l.tables[r.Class()].slot(r.Number()), false
}

// load loads one slot below the high-water mark. A slot that the checkpoint does not count
// and the log does not have was never applied, so it is free, whatever it contains.
func (l *loader) load(r Ref, counted bool) {
	tab := l.tables[r.Class()]
	image, logged := l.image(r)
	if !logged && !counted {
		l.gaps = append(l.gaps, r)
		tab.free = append(tab.free, r.Number())
		return
	}
	s, err := l.Decode(r, image)
	if err != nil {
		l.report(r, err.Error())
		return
	}
	if s.Free {
		tab.free = append(tab.free, r.Number())
		return
	}
	hash := s.hash()
	if twin, ok := l.twin(&s, hash); ok {
		l.report(r, fmt.Sprintf("its key (kind %d, account %q, id %q) is also in the slot at offset %d of %s",
			s.Kind, s.Acc, s.ID, twin.offset(), FileName(twin.Class())))
		return
	}
	l.index.Insert(hash, location(r))
	tab.live++
}

// twin returns another slot with the same key.
func (l *loader) twin(s *Slot, hash uint64) (Ref, bool) {
	for _, loc := range l.index.Candidates(hash, nil) {
		r := refAt(loc)
		image, _ := l.image(r)
		if other, _ := split(image); other.is(s.Key()) {
			return r, true
		}
	}
	return 0, false
}

// Rewrite stores the images that were passed to Load, if Load has found no damage. Sync
// makes them durable. Before that it cuts off the end of the file that neither the
// checkpoint nor the log knows: an interrupted growth may have left holes there, and a
// store into a hole of a mapped file on a full disk kills the process.
func (t *Tables) Rewrite(replayed map[Ref][]byte) error {
	for _, tab := range t.tables {
		if err := tab.trim(); err != nil {
			return fmt.Errorf("cut off unused room of %s: %w", tab.name, err)
		}
		// A copy of the directory may share the blocks, and a full disk may have no
		// room for private ones.
		if err := tab.file.Unshare(); err != nil && !disk.IsFull(err) {
			return fmt.Errorf("unshare the blocks of %s: %w", tab.name, err)
		}
	}
	for r, image := range replayed {
		if err := t.tables[r.Class()].store(r.Number(), image); err != nil {
			return err
		}
	}
	for _, r := range t.gaps {
		if err := t.storeFree(r); err != nil {
			return err
		}
	}
	t.gaps = nil
	return nil
}

// trim cuts the file off after the extents that are known to be completely on disk: those
// of the checkpoint, and those with a slot that is in the log, since a growth is synced
// before any of its slots can be used.
func (t *table) trim() error {
	keep := max(t.known, int((t.used+t.perEach-1)/t.perEach))
	rest := t.extents[keep:]
	t.extents = t.extents[:keep:keep]
	if err := unmap(rest); err != nil {
		return err
	}
	if size, err := t.file.Size(); err != nil || size == t.fileSize(keep) {
		return err
	}
	return t.file.Truncate(t.fileSize(keep))
}
