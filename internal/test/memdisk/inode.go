package memdisk

import (
	"slices"
	"sort"
)

const (
	pageSize = 4096
	sector   = 512
)

type page [pageSize]byte

func pagesOf(size int64) int { return int((size + pageSize - 1) / pageSize) }

// node is a file or directory. Neither its list nor its pages are changed in
// place, so that any number of crash states share them.
type node struct {
	dir   bool
	list  listing // of a directory
	pages []*page // of a file; nil is a page of zeros
	size  int64
}

// dirent is a name and the number of its node.
type dirent struct {
	name string
	node int
}

// listing is the names in a directory, sorted.
type listing []dirent

func (l listing) place(name string) (int, bool) {
	return sort.Find(len(l), func(i int) int {
		switch {
		case name < l[i].name:
			return -1
		case name > l[i].name:
			return 1
		}
		return 0
	})
}

// with returns a copy in which name stands for node.
func (l listing) with(name string, node int) listing {
	i, found := l.place(name)
	if found {
		l = slices.Clone(l)
		l[i].node = node
		return l
	}
	return slices.Concat(l[:i], listing{{name, node}}, l[i:])
}

// without returns a copy that lacks name.
func (l listing) without(name string) listing {
	i, found := l.place(name)
	if !found {
		return l
	}
	return slices.Concat(l[:i], l[i+1:])
}

// inode is a node as the running program sees it: the page cache.
type inode struct {
	node
	id       int
	own      []bool     // which pages may be changed in place; nil: none, nor the slice of them
	linked   bool       // has a name
	opens    int        // handles and mappings
	mappings []*mapping // open ones: their pages stay where they are
}

// unshare gives the inode its own slice of pages.
func (n *inode) unshare() {
	if n.own == nil {
		n.pages = slices.Clone(n.pages)
		n.own = make([]bool, len(n.pages))
	}
}

// writable returns page i to be changed in place.
func (n *inode) writable(i int) *page {
	n.unshare()
	if !n.own[i] {
		p := new(page)
		if n.pages[i] != nil {
			*p = *n.pages[i]
		}
		n.pages[i], n.own[i] = p, true
	}
	return n.pages[i]
}

// resize sets the length; what it cuts off reads as zeros if it grows again.
func (n *inode) resize(size int64) {
	if size < n.size {
		n.clear(size, n.size)
	}
	n.unshare()
	k := pagesOf(size)
	if k <= len(n.pages) {
		clear(n.pages[k:])
		n.pages, n.own = n.pages[:k], n.own[:k]
	} else {
		n.pages = append(n.pages, make([]*page, k-len(n.pages))...)
		n.own = append(n.own, make([]bool, k-len(n.own))...)
	}
	n.size = size
}

// write copies p to off, within the length.
func (n *inode) write(p []byte, off int64) {
	for len(p) > 0 {
		c := copy(n.writable(int(off / pageSize))[off%pageSize:], p)
		p, off = p[c:], off+int64(c)
	}
}

// clear makes [off, end) zeros, within the length.
func (n *inode) clear(off, end int64) {
	for off < end {
		next := min(end, off-off%pageSize+pageSize)
		if i := int(off / pageSize); n.pages[i] != nil {
			clear(n.writable(i)[off%pageSize:][:next-off])
		}
		off = next
	}
}

// read copies the bytes at off, within the length.
func (n *node) read(p []byte, off int64) {
	for len(p) > 0 {
		end := min(int64(len(p)), pageSize-off%pageSize)
		if pg := n.pages[off/pageSize]; pg != nil {
			copy(p[:end], pg[off%pageSize:])
		} else {
			clear(p[:end])
		}
		p, off = p[end:], off+end
	}
}

// freeze returns the node as it is now, to be shared: the inode copies a page before it
// changes it afterwards. Mapped pages are copied at once.
func (n *inode) freeze() node {
	n.own = nil
	out := n.node
	if len(n.mappings) == 0 {
		return out
	}
	out.pages = slices.Clone(out.pages)
	n.unshare()
	for _, m := range n.mappings {
		for i := m.first; i < m.first+pagesOf(int64(len(m.bytes))); i++ {
			c := *n.pages[i]
			out.pages[i], n.own[i] = &c, true
		}
	}
	return out
}
