package wal

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/internal/disk"
)

// defaultFiles is used if Options.Files is 0.
const defaultFiles = 32

// files keeps the number of open files small, however many segments there are. Files
// that are written to stay open; of the others, only those that were read recently.
type files struct {
	fs  disk.FS
	max int // idle files that may be open

	mu     sync.Mutex // guards what follows and handle.held
	idle   []*handle  // open files that may be closed
	hand   int        // the index in idle at which the search for one to close continues
	failed error      // errors of closing idle files
}

// handle is the file of a segment, opened on demand. From the first write on it stays
// open until settled is called, because the kernel reports a failed write-back only to
// descriptors that were open when it failed.
type handle struct {
	files *files
	path  string
	held  bool        // it must stay open
	used  atomic.Bool // since the search for one to close last looked at it
	gone  atomic.Bool // Close was called

	mu   sync.RWMutex // held for reading while file is used, for writing while it is opened or closed
	file disk.File    // nil if it is not open
}

func (f *files) handle(path string) *handle { return &handle{files: f, path: path} }

// create creates the file of a new segment, to be written to.
func (f *files) create(path string) (*handle, error) {
	file, err := f.fs.Create(path)
	if err != nil {
		return nil, err
	}
	return &handle{files: f, path: path, file: file, held: true}, nil
}

// add makes a handle idle, and closes idle files beyond the limit.
func (f *files) add(h *handle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.held = false
	f.idle = append(f.idle, h)
	for range 2 * len(f.idle) {
		if len(f.idle) <= f.max {
			return
		}
		if f.hand >= len(f.idle) {
			f.hand = 0
		}
		// Skip a file in use; there are never many.
		h := f.idle[f.hand]
		if h.used.Swap(false) || !h.mu.TryLock() {
			f.hand++
			continue
		}
		f.idle = slices.Delete(f.idle, f.hand, f.hand+1)
		f.failed = errors.Join(f.failed, h.file.Close())
		h.file = nil
		h.mu.Unlock()
	}
}

// keep keeps a handle from being closed.
func (f *files) keep(h *handle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.idle, h); i >= 0 {
		f.idle = slices.Delete(f.idle, i, i+1)
	}
	h.held = true
}

// close returns the errors of closing idle files so far.
func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// open opens the file unless it is open, and returns with mu held for reading.
func (h *handle) open() error {
	for {
		h.mu.RLock()
		if h.file != nil {
			if !h.used.Load() {
				h.used.Store(true)
			}
			return nil
		}
		h.mu.RUnlock()
		if err := h.openAnew(); err != nil {
			return err
		}
	}
}

func (h *handle) openAnew() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file != nil {
		return nil
	}
	if h.gone.Load() {
		return os.ErrClosed
	}
	file, err := h.files.fs.Open(h.path)
	if err != nil {
		return err
	}
	h.file = file
	h.files.add(h)
	return nil
}

// use calls f with the open file. After a write the file stays open.
func (h *handle) use(write bool, f func(disk.File) error) error {
	if err := h.open(); err != nil {
		return err
	}
	defer h.mu.RUnlock()
	if write {
		h.stay()
	}
	return f(h.file)
}

func (h *handle) stay() {
	h.files.mu.Lock()
	held := h.held
	h.files.mu.Unlock()
	if !held {
		h.files.keep(h)
	}
}

// settled is called when all writes are durable and no more will follow.
func (h *handle) settled() {
	h.files.mu.Lock()
	held := h.held
	h.files.mu.Unlock()
	if held {
		h.files.add(h)
	}
}

// ready opens the file for later writes.
func (h *handle) ready() error { return h.use(true, func(disk.File) error { return nil }) }

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.open(); err != nil {
		return 0, err
	}
	defer h.mu.RUnlock()
	return h.file.ReadAt(p, off)
}

func (h *handle) WriteAt(p []byte, off int64) (n int, err error) {
	err = h.use(true, func(f disk.File) (err error) {
		n, err = f.WriteAt(p, off)
		return err
	})
	return n, err
}

func (h *handle) Size() (n int64, err error) {
	err = h.use(false, func(f disk.File) (err error) {
		n, err = f.Size()
		return err
	})
	return n, err
}

func (h *handle) Allocate(off, n int64) error {
	return h.use(true, func(f disk.File) error { return f.Allocate(off, n) })
}

func (h *handle) Unshare() error {
	return h.use(true, func(f disk.File) error { return f.Unshare() })
}

func (h *handle) Holds(p []byte, off int64) (held bool, err error) {
	err = h.use(true, func(f disk.File) (err error) {
		held, err = f.Holds(p, off)
		return err
	})
	return held, err
}

func (h *handle) Truncate(size int64) error {
	return h.use(true, func(f disk.File) error { return f.Truncate(size) })
}

func (h *handle) Sync() error {
	return h.use(true, func(f disk.File) error { return f.Sync() })
}

// Close closes the file for good. A read that is running, and every later call,
// fails with os.ErrClosed.
func (h *handle) Close() error {
	h.gone.Store(true)
	h.mu.RLock()
	defer h.mu.RUnlock()
	h.files.keep(h)
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}
