// Package disk is the file system as the storage packages see it: the few
// calls that the promise "an acknowledged write is never lost" rests on, behind
// an interface, so that a test can hold the disk in its hands (package memdisk),
// record each call, fail any of them, and build what a power cut could leave.
//
// What is assumed of a real disk: a sector of 512 bytes is written whole or not
// at all; a sync that returned nil is on stable storage; a write that was not
// synced may be there in any part, or not at all.
package disk

import (
	"errors"
	"io"
	"syscall"
)

// Sector is the largest unit, in bytes, that a disk is trusted to write whole.
const Sector = 512

// FS is a file system. Names are slash-separated paths.
type FS interface {
	// MkdirAll makes a directory and its parents; one that exists is no error.
	MkdirAll(dir string) error
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create makes a file, which must not exist yet (fs.ErrExist), for reading
	// and writing. It counts only after SyncDir of its directory.
	Create(name string) (File, error)
	// Rename puts a file in another's place. It counts only after SyncDir.
	Rename(from, to string) error
	// Remove deletes a file. It counts only after SyncDir.
	Remove(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes a directory's entries durable.
	SyncDir(dir string) error
	// Free returns how many bytes new files in a directory can take. It is an estimate:
	// a quota can allow less.
	Free(dir string) (int64, error)
}

// File is an open file. ReadAt may be called at any time; the other calls
// belong to one goroutine at a time.
type File interface {
	io.ReaderAt
	// WriteAt writes all of p or returns an error.
	io.WriterAt
	// Size returns the file's length in bytes.
	Size() (int64, error)
	// Allocate makes [off, off+n) zeros on blocks of its own, extending the
	// file where needed, so that a later write there needs no new block. It
	// returns an error that IsFull recognises where there is no room, and may
	// then have done a part. It is durable only after Sync.
	Allocate(off, n int64) error
	// Reserve gives [off, off+n) blocks of its own as Allocate does, without
	// writing them, which takes no time: an Allocate of it will not find the
	// disk full.
	Reserve(off, n int64) error
	// Unshare makes the file's blocks its own where a copy or a snapshot shares
	// them and the file system can, so that overwriting needs no room.
	Unshare() error
	// Holds reports whether the disk has p at off, and not only the page cache, which
	// after a failed sync can show what the disk does not have.
	Holds(p []byte, off int64) (bool, error)
	// Truncate sets the file's length.
	Truncate(size int64) error
	// Sync makes the file's contents and length durable (fdatasync). After an
	// error what was written since the last good Sync may be lost, though it
	// can still be read: never call Sync again and believe it.
	Sync() error
	// Map maps [off, off+n), which must lie within the file; off is a multiple
	// of the page size.
	Map(off int64, n int) (Mapping, error)
	Close() error
}

// Mapping is a part of a file mapped into memory and shared with it. A store
// may reach the disk at any time and is sure to be there after Sync.
type Mapping interface {
	// Bytes is the mapped memory. It is for reading: a store goes through Store.
	Bytes() []byte
	// Store copies p to off, in no more than one page. An error says that the page
	// cannot be written, and nothing was stored: the file system has failed or, if
	// IsFull recognises it, has no room to write shared blocks to a new place.
	Store(off int, p []byte) error
	// Sync makes every store so far durable (msync). What File.Sync says of
	// errors holds here too.
	Sync() error
	// Close unmaps. No slice of Bytes may be used afterwards.
	Close() error
}

// IsFull reports whether err means that the disk, or the quota, is full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsNoDescriptor reports whether err means that the process, or the machine, has no
// file descriptor left: nothing was done, and the disk is neither full nor failed.
func IsNoDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
