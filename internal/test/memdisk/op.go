package memdisk

import (
	"errors"
	"fmt"
	"os"
)

// Kind says which call an Op is.
type Kind uint8

// The calls of disk.FS, disk.File and disk.Mapping, and Note for FS.Mark.
const (
	Open Kind = iota
	Create
	MkdirAll
	Rename
	Remove
	ReadDir
	SyncDir
	Read
	Write
	Size
	Allocate
	Truncate
	Sync
	Close
	Map
	Store
	SyncMap
	Unmap
	Note
)

var kindNames = [...]string{
	"open", "create", "mkdir", "rename", "remove", "readdir", "syncdir", "read", "write", "size",
	"allocate", "truncate", "sync", "close", "map", "store", "msync", "unmap", "mark",
}

func (k Kind) String() string { return kindNames[k] }

// Op is one call, as the hook of FS.Fail gets it and as the journal has it.
type Op struct {
	N    int // running number of the call, from 1, over all calls; 0 for a Note
	Kind Kind
	Name string // of the file, as it was opened, or the directory
	To   string // Rename: the new name
	Off  int64  // in bytes; Truncate: the new length
	Len  int64  // in bytes; in the journal, what was really done
	Note any    // what FS.Mark was given
	Err  error  // journal only: the error of a failed sync
}

func (o Op) String() string {
	s := fmt.Sprintf("op %d: %s %s", o.N, o.Kind, o.Name)
	switch o.Kind {
	case Rename:
		s += " to " + o.To
	case Read, Write, Allocate, Map, Store, SyncMap:
		s += fmt.Sprintf(" %d bytes at %d", o.Len, o.Off)
	case Truncate:
		s += fmt.Sprintf(" to %d bytes", o.Off)
	case Note:
		s = fmt.Sprintf("mark %v", o.Note)
	}
	if o.Err != nil {
		s += ": " + o.Err.Error()
	}
	return s
}

// fail is the error of a failed call.
func (o Op) fail(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return err
	}
	return &os.PathError{Op: o.Kind.String(), Path: o.Name, Err: err}
}

// Short returns an error for the hook of FS.Fail. With it a Write or an Allocate does its
// first n bytes and then fails with err.
func Short(n int64, err error) error { return &short{n, err} }

type short struct {
	n   int64
	err error
}

func (s *short) Error() string { return fmt.Sprintf("after %d bytes: %v", s.n, s.err) }
func (s *short) Unwrap() error { return s.err }

// entry is an Op in the journal, with what is needed to repeat it.
type entry struct {
	Op
	at    int    // its place in the journal
	node  int    // the inode, or the directory, that it changes
	child int    // Create, MkdirAll: the inode that the new name stands for
	data  []byte // Write, Store
	start int    // syncs: how many entries there were when it was called
}
