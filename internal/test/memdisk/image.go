package memdisk

import (
	"bytes"
	"math"
	"slices"
)

// image is a file or directory in a Cut: what is durable, and the changes that are not, in
// order.
type image struct {
	node                     // what is durable; of the pages, also beyond the durable length
	own   bool               // the slice of pages may be changed in place; a page never is
	gone  bool               // it has lost its name for good
	ops   []*entry           // of a directory
	sizes []length           // of a file
	dirty []*dirtyPage       // of a file, in the order of their first change
	find  map[int]*dirtyPage // dirty, by page number
}

// length is a length that a file has had.
type length struct {
	at   int
	size int64
}

// dirtyPage has the changes of a page that are not durable: in each sector first those that a
// failed sync lost, then the others.
type dirtyPage struct {
	number  int
	sectors [pageSize / sector][]change
}

// change is a write to one sector.
type change struct {
	at     int           // place in the journal
	lo, hi int           // which bytes of the sector
	data   []byte        // nil: zeros
	store  bool          // through a mapping: may be torn
	lost   bool          // by a failed sync: counts as clean
	hidden *[sector]bool // bytes that were made durable by a later change
}

var zeros [sector]byte

// newest returns the length as the program sees it.
func (m *image) newest() int64 {
	if n := len(m.sizes); n > 0 {
		return m.sizes[n-1].size
	}
	return m.size
}

func (m *image) write(e *entry) {
	if end := e.Off + e.Len; end > m.newest() {
		m.sizes = append(m.sizes, length{e.at, end})
	}
	m.change(e, e.Off, e.Off+e.Len)
}

func (m *image) truncate(e *entry) {
	size := m.newest()
	m.sizes = append(m.sizes, length{e.at, e.Off})
	m.change(e, e.Off, size)
}

// change adds changes of the sectors of [off, end) that are not durable: to e's data, or to
// zeros. Zeros over zeros are no change.
func (m *image) change(e *entry, off, end int64) {
	for pos := off; pos < end; {
		number, in := int(pos/pageSize), int(pos%pageSize)
		d, p := m.find[number], m.page(number)
		if e.data == nil && d == nil && p == nil {
			pos += int64(pageSize - in)
			continue
		}
		s, lo := in/sector, in%sector
		c := change{at: e.at, lo: lo, hi: int(min(sector, int64(lo)+end-pos)), store: e.Kind == Store}
		if e.data != nil {
			c.data = e.data[pos-off:][:c.hi-lo]
		}
		pos += int64(c.hi - lo)
		clean := d == nil || len(d.sectors[s]) == 0
		if c.data == nil && clean && (p == nil || bytes.Equal(p[s*sector:][:sector], zeros[:])) {
			continue
		}
		if d == nil {
			d = m.soil(number)
		}
		d.sectors[s] = append(d.sectors[s], c)
	}
}

// soil marks a page as dirty.
func (m *image) soil(number int) *dirtyPage {
	d := &dirtyPage{number: number}
	if m.find == nil {
		m.find = make(map[int]*dirtyPage)
	}
	m.find[number] = d
	m.dirty = append(m.dirty, d)
	return d
}

// page returns a durable page, nil if it is zeros.
func (m *image) page(number int) *page {
	if number < len(m.pages) {
		return m.pages[number]
	}
	return nil
}

// sync makes the changes before its call durable, or marks them as lost if it failed.
func (m *image) sync(e *entry) {
	first, end := 0, math.MaxInt
	if e.Kind == SyncMap {
		first, end = int(e.Off/pageSize), pagesOf(e.Off+e.Len)
	} else if e.Err == nil {
		for len(m.sizes) > 0 && m.sizes[0].at < e.start {
			m.size, m.sizes = m.sizes[0].size, m.sizes[1:]
		}
	}
	m.dirty = slices.DeleteFunc(m.dirty, func(d *dirtyPage) bool {
		if d.number < first || d.number >= end {
			return false
		}
		if e.Err != nil {
			d.lose(e.start)
			return false
		}
		left := m.settle(d, e.start)
		if left == 0 {
			delete(m.find, d.number)
		}
		return left == 0
	})
}

// lose marks the changes that a failed sync would have made durable.
func (d *dirtyPage) lose(start int) {
	for _, changes := range d.sectors {
		for i := range changes {
			changes[i].lost = changes[i].lost || changes[i].at < start
		}
	}
}

// settle makes the changes before start durable, except lost ones, and returns how many
// changes are left.
func (m *image) settle(d *dirtyPage, start int) (left int) {
	var p *page
	for s, changes := range d.sectors {
		lost := lostOf(changes)
		end := lost
		for ; end < len(changes) && changes[end].at < start; end++ {
			if p == nil {
				p = m.replace(d.number)
			}
			changes[end].apply(p[s*sector:][:sector])
			for i := range changes[:lost] {
				changes[i].hide(changes[end].lo, changes[end].hi)
			}
		}
		kept := slices.DeleteFunc(changes[:lost], change.overwritten)
		d.sectors[s] = append(kept, changes[end:]...)
		left += len(d.sectors[s])
	}
	return left
}

// replace replaces a durable page by a copy.
func (m *image) replace(number int) *page {
	if !m.own {
		m.pages, m.own = slices.Clone(m.pages), true
	}
	if more := number + 1 - len(m.pages); more > 0 {
		m.pages = append(m.pages, make([]*page, more)...)
	}
	p := new(page)
	if old := m.pages[number]; old != nil {
		*p = *old
	}
	m.pages[number] = p
	return p
}

// lostOf returns how many changes of a sector a failed sync lost: the first ones.
func lostOf(changes []change) int {
	n := 0
	for n < len(changes) && changes[n].lost {
		n++
	}
	return n
}

// apply makes a change to its sector.
func (c *change) apply(sec []byte) { c.part(sec, c.lo, c.hi) }

// part makes the part of a change that is in [lo, hi).
func (c *change) part(sec []byte, lo, hi int) {
	lo, hi = max(lo, c.lo), min(hi, c.hi)
	if c.hidden == nil {
		if c.data == nil {
			clear(sec[lo:hi])
		} else {
			copy(sec[lo:hi], c.data[lo-c.lo:])
		}
		return
	}
	for i := lo; i < hi; i++ {
		if c.hidden[i] {
			continue
		}
		if sec[i] = 0; c.data != nil {
			sec[i] = c.data[i-c.lo]
		}
	}
}

// hide removes bytes from a lost change, because a later one made them durable.
func (c *change) hide(lo, hi int) {
	if c.hidden == nil {
		c.hidden = new([sector]bool)
	}
	for i := lo; i < hi; i++ {
		c.hidden[i] = true
	}
}

// overwritten reports whether nothing is left of a lost change.
func (c change) overwritten() bool {
	return c.hidden != nil && !slices.Contains(c.hidden[c.lo:c.hi], false)
}

// build returns the file or directory with the changes that survive according to f.
func (m *image) build(f *fate) node {
	if m.dir {
		list := m.list
		for _, e := range m.ops[:f.pick(len(m.ops))] {
			list, _ = apply(list, e)
		}
		return node{dir: true, list: list}
	}
	size := m.size
	if n := f.pick(len(m.sizes)); n > 0 {
		size = m.sizes[n-1].size
	}
	k, tail := pagesOf(size), int(size%pageSize)
	if len(m.dirty) == 0 && len(m.pages) == k && tail == 0 {
		m.own = false
		return node{pages: m.pages, size: size}
	}
	pages := make([]*page, k)
	copy(pages, m.pages)
	for _, d := range m.dirty {
		if d.number >= k {
			continue
		}
		p := new(page)
		if old := pages[d.number]; old != nil {
			*p = *old
		}
		for s, changes := range d.sectors {
			f.sector(p[s*sector:][:sector], changes)
		}
		pages[d.number] = p
	}
	if tail > 0 && pages[k-1] != nil {
		p := *pages[k-1]
		clear(p[tail:])
		pages[k-1] = &p
	}
	return node{pages: pages, size: size}
}

// sector makes the surviving changes to a sector. Changes that a failed sync lost and later
// changes survive independently.
func (f *fate) sector(sec []byte, changes []change) {
	lost := lostOf(changes)
	for _, part := range [...][]change{changes[:lost], changes[lost:]} {
		n := f.pick(len(part))
		for i := range part[:n] {
			part[i].apply(sec)
		}
		if n == len(part) || !part[n].store || !f.torn() {
			continue
		}
		for w := part[n].lo &^ 7; w < part[n].hi; w += 8 {
			if f.rnd.IntN(2) == 0 {
				part[n].part(sec, w, w+8)
			}
		}
	}
}
