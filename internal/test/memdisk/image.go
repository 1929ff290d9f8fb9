package memdisk

import (
	"bytes"
	"math"
	"slices"
)

// image is a file or directory as a Cut knows it: what is durable and, in order,
// what is not.
type image struct {
	node                     // what is durable; of the pages, also beyond the durable length
	own   bool               // the slice of pages may be changed in place; a page never is
	gone  bool               // it has no name any more, and never will
	ops   []*entry           // of a directory
	sizes []length           // of a file
	dirty []*dirtyPage       // of a file, in the order of their first change
	find  map[int]*dirtyPage // dirty, by page number
}

// length is one that a file has had.
type length struct {
	at   int
	size int64
}

// dirtyPage is the changes of a page that are not durable: in each sector first
// those that a failed sync lost, then the others.
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

// change adds the sectors of [off, end) to what is not durable: e's data, or
// zeros. Zeros upon zeros are no change.
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

// soil makes a page dirty.
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

// sync makes durable, or if it failed marks as lost, what was done before it was called.
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

// lose marks what a failed sync would have made durable.
func (d *dirtyPage) lose(start int) {
	for _, changes := range d.sectors {
		for i := range changes {
			changes[i].lost = changes[i].lost || changes[i].at < start
		}
	}
}

// settle makes durable what came before start and was not lost, and returns how
// many changes are left.
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

// replace puts a copy in the place of a durable page.
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

// apply does a change to its sector.
func (c *change) apply(sec []byte) { c.part(sec, c.lo, c.hi) }

// part does what of a change lies in [lo, hi).
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

// hide takes bytes out of a lost change: a later one made them durable.
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

// build returns the file or directory as f has it survive.
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

// sector does to a sector the changes that survive. What a failed sync lost and
// what came after it survive independently.
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
