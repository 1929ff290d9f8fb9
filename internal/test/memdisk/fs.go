package memdisk

import (
	"errors"
	"math"
	"path"
	"strings"
	"sync"
	"syscall"

	"clouddragon/internal/disk"
)

// FS is a disk.FS in memory. Any number of goroutines may use it at once. Names
// are relative to its root, which always exists: "data" and "/data" are the same.
type FS struct {
	mu      sync.Mutex // guards all below and every inode; held for one call
	nodes   []*inode   // the tree as the program sees it; 0 is the root
	base    []node     // the tree on the disk when the journal began; never changed
	journal []entry
	calls   int // how many there were, for Op.N
	hook    func(Op) error
	frozen  bool
	whole   bool  // stores are never torn inside a sector
	room    int64 // limit of used; negative: none
	used    int64 // sum of the lengths of all files
	handles int   // open files and mappings
}

var _ disk.FS = (*FS)(nil)

// New returns an empty disk.
func New() *FS { return plant([]node{{dir: true}}) }

// plant returns a disk with the given tree, all of it durable.
func plant(base []node) *FS {
	fs := &FS{base: base, nodes: make([]*inode, len(base)), room: -1}
	live := make([]inode, len(base))
	for i, n := range base {
		live[i] = inode{node: n, id: i, linked: true}
		fs.nodes[i] = &live[i]
		fs.used += n.size
	}
	return fs
}

// try runs a call: it asks the hook, without holding a lock, and passes the hook's answer to
// do. On a frozen disk only calls that concern memory alone are run.
func (fs *FS) try(op Op, do func(e *entry, fault error) error) error {
	fs.mu.Lock()
	fs.calls++
	op.N = fs.calls
	e := &entry{Op: op, start: len(fs.journal)}
	hook, frozen := fs.hook, fs.frozen
	fs.mu.Unlock()
	var fault error
	if hook != nil && !frozen {
		fault = hook(op)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.frozen {
		if fault = nil; op.Kind != Close && op.Kind != Unmap && op.Kind != Store {
			return op.fail(syscall.EIO)
		}
	}
	if err := do(e, fault); err != nil {
		return op.fail(err)
	}
	return nil
}

// run is try for a call that does nothing when it fails.
func (fs *FS) run(op Op, do func(e *entry) error) error {
	return fs.try(op, func(e *entry, fault error) error {
		if fault != nil {
			return fault
		}
		return do(e)
	})
}

// record appends a change of n to the journal.
func (fs *FS) record(e *entry, n *inode) {
	e.at, e.node = len(fs.journal), n.id
	fs.journal = append(fs.journal, *e)
}

// clean returns a name in the package's form: relative to the root, which is "".
func clean(name string) string { return path.Clean("/" + name)[1:] }

// lookup finds what a name stands for.
func (fs *FS) lookup(name string) (*inode, error) {
	n := fs.nodes[0]
	for rest := clean(name); rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		i, found := n.list.place(part)
		if !found {
			return nil, syscall.ENOENT
		}
		n = fs.nodes[n.list[i].node]
	}
	return n, nil
}

// lookupDir is lookup for a directory.
func (fs *FS) lookupDir(name string) (*inode, error) {
	n, err := fs.lookup(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	return n, err
}

// add makes a new file or directory in dir.
func (fs *FS) add(e *entry, dir *inode, n *inode) {
	n.id, n.linked = len(fs.nodes), true
	fs.nodes = append(fs.nodes, n)
	dir.list = dir.list.with(path.Base(e.Name), n.id)
	e.child = n.id
	fs.record(e, dir)
}

// drop removes a name, and its file once nothing has it open.
func (fs *FS) drop(n *inode) {
	n.linked = false
	fs.release(n)
}

func (fs *FS) release(n *inode) {
	if !n.linked && n.opens == 0 {
		fs.used -= n.size
		n.node, n.own = node{dir: n.dir}, nil
	}
}

// open returns a new handle.
func (fs *FS) open(n *inode, name string) *file {
	n.opens++
	fs.handles++
	return &file{fs: fs, ino: n, name: name}
}

// MkdirAll is as disk.FS says.
func (fs *FS) MkdirAll(dir string) error {
	return fs.run(Op{Kind: MkdirAll, Name: dir}, func(e *entry) error { return fs.mkdirAll(e, clean(dir)) })
}

func (fs *FS) mkdirAll(e *entry, dir string) error {
	if _, err := fs.lookupDir(dir); !errors.Is(err, syscall.ENOENT) {
		return err
	}
	up := clean(path.Dir(dir))
	if err := fs.mkdirAll(e, up); err != nil {
		return err
	}
	parent, err := fs.lookupDir(up)
	if err != nil {
		return err
	}
	e.Name = dir
	fs.add(e, parent, &inode{node: node{dir: true}})
	return nil
}

// Open is as disk.FS says.
func (fs *FS) Open(name string) (f disk.File, err error) {
	err = fs.run(Op{Kind: Open, Name: name}, func(*entry) error {
		n, err := fs.lookup(name)
		if err == nil && n.dir {
			err = syscall.EISDIR
		}
		if err != nil {
			return err
		}
		f = fs.open(n, name)
		return nil
	})
	return f, err
}

// Create is as disk.FS says. It needs at least one byte of room.
func (fs *FS) Create(name string) (f disk.File, err error) {
	err = fs.run(Op{Kind: Create, Name: name}, func(e *entry) error {
		n, err := fs.create(e)
		if err != nil {
			return err
		}
		f = fs.open(n, name)
		return nil
	})
	return f, err
}

func (fs *FS) create(e *entry) (*inode, error) {
	dir, err := fs.lookupDir(path.Dir(clean(e.Name)))
	if err != nil {
		return nil, err
	}
	if _, err := fs.lookup(e.Name); err == nil {
		return nil, syscall.EEXIST
	}
	if fs.room >= 0 && fs.used >= fs.room {
		return nil, syscall.ENOSPC
	}
	n := new(inode)
	fs.add(e, dir, n)
	return n, nil
}

// Rename is as disk.FS says. Renaming to another directory fails with EXDEV, renaming a
// directory with EISDIR.
func (fs *FS) Rename(from, to string) error {
	return fs.run(Op{Kind: Rename, Name: from, To: to}, func(e *entry) error {
		n, err := fs.lookup(from)
		if err != nil {
			return err
		}
		old, err := fs.lookup(to)
		switch {
		case n.dir:
			return syscall.EISDIR
		case err == nil && old.dir:
			return syscall.EEXIST
		case path.Dir(clean(from)) != path.Dir(clean(to)):
			return syscall.EXDEV
		case old == n:
			return nil
		}
		dir, err := fs.lookupDir(path.Dir(clean(from)))
		if err != nil {
			return err
		}
		dir.list = dir.list.without(path.Base(from)).with(path.Base(to), n.id)
		if old != nil {
			fs.drop(old)
		}
		fs.record(e, dir)
		return nil
	})
}

// Remove is as disk.FS says; a directory must be empty.
func (fs *FS) Remove(name string) error {
	return fs.run(Op{Kind: Remove, Name: name}, func(e *entry) error {
		n, err := fs.lookup(name)
		switch {
		case err != nil:
			return err
		case len(n.list) > 0:
			return syscall.ENOTEMPTY
		case n == fs.nodes[0]:
			return syscall.EBUSY
		}
		dir, err := fs.lookupDir(path.Dir(clean(name)))
		if err != nil {
			return err
		}
		dir.list = dir.list.without(path.Base(name))
		fs.drop(n)
		fs.record(e, dir)
		return nil
	})
}

// ReadDir is as disk.FS says.
func (fs *FS) ReadDir(dir string) (names []string, err error) {
	err = fs.run(Op{Kind: ReadDir, Name: dir}, func(*entry) error {
		n, err := fs.lookupDir(dir)
		if err != nil {
			return err
		}
		names = make([]string, 0, len(n.list))
		for _, d := range n.list {
			names = append(names, d.name)
		}
		return nil
	})
	return names, err
}

// SyncDir is as disk.FS says.
func (fs *FS) SyncDir(dir string) error {
	return fs.try(Op{Kind: SyncDir, Name: dir}, func(e *entry, fault error) error {
		n, err := fs.lookupDir(dir)
		if err != nil {
			return err
		}
		e.Err = fault
		fs.record(e, n)
		return fault
	})
}

// Free returns what SetRoom leaves.
func (fs *FS) Free(string) (int64, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.room < 0 {
		return math.MaxInt64 / 2, nil
	}
	return max(fs.room-fs.used, 0), nil
}
