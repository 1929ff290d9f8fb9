package slots

import (
	"fmt"

	"clouddragon/internal/disk"
)

// Damage is a place of a table file that does not hold what it has to.
type Damage struct {
	File   string
	Offset int64 // of the slot, in bytes
	What   string
}

func (d Damage) String() string {
	return fmt.Sprintf("%s: the slot at offset %d: %s", d.File, d.Offset, d.What)
}

// Load reads every slot below the high-water marks once, and builds the index
// and the free lists. used are the marks of the checkpoint; replayed are the
// last images of the slots in the log behind it, which go before what the file
// holds and lift the marks where they lie above. It calls damage for every slot
// that does not check, for a key that is there twice, and for a slot beyond the
// end of its file. It changes nothing on disk.
func (t *Tables) Load(used [4]uint64, replayed map[Ref][]byte, damage func(Damage)) {
	l := loader{Tables: t, replayed: replayed, damage: damage}
	marks := used
	for r := range replayed {
		if t.Has(r) {
			marks[r.Class()] = max(marks[r.Class()], r.Number()+1)
		} else {
			l.report(r, fmt.Sprintf("slot %d is in the log, but the table ends with %d slots",
				r.Number(), t.tables[r.Class()].capacity()))
		}
	}
	for class, tab := range t.tables {
		if most := tab.capacity(); used[class] > most {
			l.report(MakeRef(class, most), fmt.Sprintf("the checkpoint counts %d slots, but the table ends with %d",
				used[class], most))
			used[class], marks[class] = most, most
		}
		// The free list ends with the lowest number, which is given first.
		for n := marks[class]; n > 0; n-- {
			l.load(MakeRef(class, n-1), n <= used[class])
		}
		tab.used, tab.next = marks[class], marks[class]
		tab.trusted = max(tab.trusted, int((used[class]+tab.perEach-1)/tab.perEach))
	}
}

// loader is one run of Load.
type loader struct {
	*Tables
	replayed map[Ref][]byte
	damage   func(Damage)
}

func (l *loader) report(r Ref, what string) {
	l.damage(Damage{File: l.tables[r.Class()].name, Offset: r.offset(), What: what})
}

// image returns what slot r holds once Rewrite is done, and whether it is from the log.
func (l *loader) image(r Ref) (image []byte, logged bool) {
	if image, logged = l.replayed[r]; logged {
		return image, true
	}
	return l.tables[r.Class()].slot(r.Number()), false
}

// load takes in one slot below the mark. Only one that the checkpoint counts, or
// that is in the log, has to hold an image.
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
		l.report(r, fmt.Sprintf("kind %d, account %q, id %q is in the slot at offset %d of %s too",
			s.Kind, s.Acc, s.ID, twin.offset(), l.tables[twin.Class()].name))
		return
	}
	l.index.Insert(hash, location(r))
	tab.live++
}

// twin finds another slot with the same key.
func (l *loader) twin(s *Slot, hash uint64) (Ref, bool) {
	var room [8]uint64
	for _, loc := range l.index.Candidates(hash, room[:0]) {
		r := refAt(loc)
		image, _ := l.image(r)
		if other, _ := split(image); other.Kind == s.Kind &&
			string(other.ID) == string(s.ID) && string(other.Acc) == string(s.Acc) {
			return r, true
		}
	}
	return 0, false
}

// Rewrite stores the images that Load was given. Sync makes them durable. Room
// that was made after the checkpoint may not be on disk whole, if a crash cut a
// growth off, and a store to a hole in a mapped file on a full disk ends the
// process: so it is made anew first, or given up where nothing was put there.
func (t *Tables) Rewrite(replayed map[Ref][]byte) error {
	for _, tab := range t.tables {
		if err := tab.secure(); err != nil {
			return err
		}
	}
	for r, image := range replayed {
		t.tables[r.Class()].store(r.Number(), image)
	}
	for _, r := range t.gaps {
		t.storeFree(r)
	}
	t.gaps = nil
	return nil
}

// secure makes sure of the extents behind the trusted ones. All that counts in
// them is in the log, and is stored after this.
func (t *table) secure() error {
	for i := t.trusted; i < len(t.extents); i++ {
		err := t.file.Allocate(t.fileSize(i), t.extent)
		if err == nil {
			continue
		}
		if !disk.IsFull(err) || t.used > uint64(i)*t.perEach {
			return fmt.Errorf("make sure of the room in %s at %d: %w", t.name, t.fileSize(i), err)
		}
		lost := t.extents[i:]
		t.extents = t.extents[:i]
		if err := unmap(lost); err != nil {
			return err
		}
		return t.file.Truncate(t.fileSize(i))
	}
	if t.trusted < len(t.extents) {
		return t.file.Sync()
	}
	return nil
}
