package memdisk

import (
	"errors"
	"path"
	"slices"
	"syscall"
)

// What a test can do to the disk. The hook and a freeze do not affect it.

// Fail sets a hook that is called before each call of the disk; nil removes it. An error from
// the hook makes exactly that call fail. The failed call does nothing, except after Short; a
// failed Sync loses what was not synced (see the package comment); a failed Close still
// closes. The hook is called without locks, on the goroutine of the call and perhaps on
// several at once, so it may block, use the disk, and Freeze it.
func (fs *FS) Fail(hook func(Op) error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.hook = hook
}

// Freeze makes the disk dead: from now on nothing is recorded and every call returns EIO.
// Close still closes, and Store still changes the memory. Reopen, Clone and the cuts still
// work.
func (fs *FS) Freeze() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.frozen = true
}

// SetRoom limits the sum of all files' lengths in bytes. A call that would exceed the limit
// does what fits and returns ENOSPC. Negative: no limit, which is the default.
func (fs *FS) SetRoom(bytes int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.room = bytes
}

// Used returns the sum of all files' lengths in bytes, including removed files that are still
// open.
func (fs *FS) Used() int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.used
}

// OpenHandles returns how many files and mappings are open.
func (fs *FS) OpenHandles() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.handles
}

// TearStores sets whether an unsynced Store may be torn inside a sector, between words of 8
// bytes. By default it may. Disks that are built from this one have the same setting.
func (fs *FS) TearStores(on bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.whole = !on
}

// Reopen returns the disk that a new process finds after the old one was killed, without a
// power cut. It has a copy of the journal and of the page cache, so that even data that a
// failed sync lost can be read. It has no handles and no hook, and is not frozen. The old disk
// is unchanged.
func (fs *FS) Reopen() *FS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := &FS{base: fs.base, journal: slices.Clone(fs.journal), calls: fs.calls, whole: fs.whole, room: fs.room}
	for _, n := range fs.nodes {
		c := &inode{id: n.id}
		if c.linked = n.linked; c.linked {
			c.node = n.freeze()
		}
		out.nodes = append(out.nodes, c)
		out.used += c.size
	}
	return out
}

// Clone returns a new disk with everything that can be read now, all of it durable, and with
// an empty journal.
func (fs *FS) Clone() *FS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := plant(grow(nil, 0, func(id int) node { return fs.nodes[id].freeze() }))
	out.whole = fs.whole
	return out
}

// grow appends the node that get returns for id to tree, with its children, and numbers them
// anew.
func grow(tree []node, id int, get func(id int) node) []node {
	n, at := get(id), len(tree)
	tree = append(tree, n)
	if !n.dir {
		return tree
	}
	list := make(listing, len(n.list))
	for i, d := range n.list {
		list[i] = dirent{d.name, len(tree)}
		tree = grow(tree, d.node, get)
	}
	tree[at].list = list
	return tree
}

// Files returns the names of all files, sorted, relative to the root.
func (fs *FS) Files() []string {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var names []string
	var walk func(name string, n *inode)
	walk = func(name string, n *inode) {
		if !n.dir {
			names = append(names, name)
		}
		for _, d := range n.list {
			walk(path.Join(name, d.name), fs.nodes[d.node])
		}
	}
	walk("", fs.nodes[0])
	slices.Sort(names)
	return names
}

// ReadFile returns what can be read in a file.
func (fs *FS) ReadFile(name string) ([]byte, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.lookup(name)
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, Op{Kind: Read, Name: name}.fail(err)
	}
	b := make([]byte, n.size)
	n.read(b, 0)
	return b, nil
}

// WriteFile durably replaces the contents of a file, and makes the file and its directories if
// they are missing. Neither the hook nor a freeze stops it. The journal shows it as a
// MkdirAll, Create, Write, Truncate, Sync and SyncDirs.
func (fs *FS) WriteFile(name string, data []byte) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	name = clean(name)
	at := func(k Kind, name string) *entry { return &entry{Op: Op{Kind: k, Name: name}, start: len(fs.journal)} }
	if err := fs.mkdirAll(at(MkdirAll, ""), clean(path.Dir(name))); err != nil {
		return err
	}
	n, err := fs.lookup(name)
	if errors.Is(err, syscall.ENOENT) {
		n, err = fs.create(at(Create, name))
	}
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return Op{Kind: Write, Name: name}.fail(err)
	}
	f := &file{fs: fs, ino: n, name: name}
	write, cut := at(Write, name), at(Truncate, name)
	write.Len, cut.Off = int64(len(data)), int64(len(data))
	if err := f.write(write, data, nil); err != nil {
		return write.fail(err)
	}
	if err := f.truncate(cut); err != nil {
		return cut.fail(err)
	}
	fs.record(at(Sync, name), n)
	for name != "" {
		name = clean(path.Dir(name))
		dir, err := fs.lookupDir(name)
		if err != nil {
			return err
		}
		fs.record(at(SyncDir, name), dir)
	}
	return nil
}
