package memdisk

import (
	"iter"
	"math/rand/v2"
	"path"
	"slices"
)

// Cut is the disk at the moment of a power cut: what is durable, and what is not yet. It
// builds any number of the states that the cut may leave. Each state is a new disk with an
// empty journal, and everything on it is durable.
type Cut struct {
	journal []entry
	at      int
	marks   []any
	images  []*image // by node
	whole   bool
}

// Mark puts a note into the journal, such as "this write was acknowledged", even if the disk
// is frozen. A later cut has it in its Marks.
func (fs *FS) Mark(note any) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.journal = append(fs.journal, entry{Op: Op{Kind: Note, Note: note}, at: len(fs.journal)})
}

// Len returns the number of entries in the journal: each change (Write, Store,
// Allocate, Truncate, Create, MkdirAll, Rename, Remove), each sync and each note.
func (fs *FS) Len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.journal)
}

// Journal returns the entries of the journal.
func (fs *FS) Journal() []Op {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	ops := make([]Op, len(fs.journal))
	for i, e := range fs.journal {
		ops[i] = e.Op
	}
	return ops
}

// Cuts iterates over the cuts before the first entry of the journal, after the first, and so
// on until after the current last one. A Cut is valid until the next iteration. Each step
// costs only what its entry changes.
func (fs *FS) Cuts() iter.Seq[*Cut] {
	return func(yield func(*Cut) bool) {
		c := fs.begin()
		for yield(c) && c.at < len(c.journal) {
			c.step()
		}
	}
}

// Cut returns the cut after the first at entries of the journal.
func (fs *FS) Cut(at int) *Cut {
	c := fs.begin()
	for c.at < at {
		c.step()
	}
	return c
}

// Crash is Cut(at).Random(rnd). It replays the whole journal: for many states use Cuts.
func (fs *FS) Crash(at int, rnd *rand.Rand) *FS { return fs.Cut(at).Random(rnd) }

func (fs *FS) begin() *Cut {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	c := &Cut{journal: slices.Clip(fs.journal), whole: fs.whole}
	for _, n := range fs.base {
		c.images = append(c.images, &image{node: n})
	}
	return c
}

// step advances past the next entry.
func (c *Cut) step() {
	e := &c.journal[c.at]
	c.at++
	if e.Kind == Note {
		c.marks = append(c.marks, e.Note)
		return
	}
	m := c.images[e.node]
	if m.gone {
		return
	}
	switch e.Kind {
	case Create, MkdirAll:
		c.images = append(c.images, &image{node: node{dir: e.Kind == MkdirAll}})
		m.ops = append(m.ops, e)
	case Rename, Remove:
		m.ops = append(m.ops, e)
	case SyncDir:
		for e.Err == nil && len(m.ops) > 0 && m.ops[0].at < e.start {
			var gone int
			if m.list, gone = apply(m.list, m.ops[0]); gone > 0 {
				c.images[gone] = &image{gone: true}
			}
			m.ops = m.ops[1:]
		}
	case Write, Store, Allocate:
		m.write(e)
	case Truncate:
		m.truncate(e)
	case Sync, SyncMap:
		m.sync(e)
	}
}

// apply returns a directory after one more operation, and the node that has lost its name, or
// 0.
func apply(l listing, e *entry) (_ listing, gone int) {
	id := func(name string) int {
		if i, found := l.place(name); found {
			return l[i].node
		}
		return 0
	}
	name := path.Base(e.Name)
	switch e.Kind {
	case Rename:
		to := path.Base(e.To)
		return l.without(name).with(to, id(name)), id(to)
	case Remove:
		return l.without(name), id(name)
	}
	return l.with(name, e.child), 0
}

// At returns how many entries of the journal are before the cut.
func (c *Cut) At() int { return c.at }

// Last returns the last entry before the cut, the zero Op if there is none.
func (c *Cut) Last() Op {
	if c.at == 0 {
		return Op{}
	}
	return c.journal[c.at-1].Op
}

// Marks returns the notes before the cut, in order. The caller must not change them.
func (c *Cut) Marks() []any { return slices.Clip(c.marks) }

// Unsynced reports whether anything is not durable. If not, the cut has only one state.
func (c *Cut) Unsynced() bool {
	return slices.ContainsFunc(c.images, func(m *image) bool { return len(m.ops)+len(m.sizes)+len(m.dirty) > 0 })
}

// Nothing builds the state in which nothing survives that was not synced.
func (c *Cut) Nothing() *FS { return c.build(&fate{share: none}) }

// Everything builds the state in which everything survives. A kill of the process without a
// power cut leaves the same state.
func (c *Cut) Everything() *FS { return c.build(&fate{share: all}) }

// Random builds a random state. For each file it first chooses which share of the unsynced
// changes survives (none, few, some, most, all), so that states in which one file is new and
// another old are not rare.
func (c *Cut) Random(rnd *rand.Rand) *FS { return c.build(&fate{rnd: rnd, tear: !c.whole}) }

func (c *Cut) build(f *fate) *FS {
	out := plant(grow(nil, 0, func(id int) node {
		if f.rnd != nil {
			f.share = f.rnd.IntN(shares)
		}
		return c.images[id].build(f)
	}))
	out.whole = c.whole
	return out
}

// The share of the unsynced changes that a file or directory keeps.
const (
	none = iota
	few
	some
	most
	all
	shares
)

// fate decides what survives.
type fate struct {
	rnd   *rand.Rand // nil if share is none or all
	share int
	tear  bool
}

// pick returns how many of n unsynced changes to the same place survive.
func (f *fate) pick(n int) int {
	switch {
	case n == 0 || f.share == none:
		return 0
	case f.share == all:
		return n
	case f.share == few && f.rnd.IntN(8) > 0:
		return 0
	case f.share == most && f.rnd.IntN(8) > 0:
		return n
	}
	return f.rnd.IntN(n + 1)
}

// torn reports whether a part of the first lost store survives.
func (f *fate) torn() bool {
	return f.tear && f.share != none && f.rnd.IntN(4) == 0
}
