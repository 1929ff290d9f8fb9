package wal

import (
	"errors"
	"io/fs"
	"path"
)

// What the log holds back on a full disk. After the segment that is written to, the
// active one, come the next segment and the reserve, a file whose blocks become the
// segment after that:
//
//	            active        next          reserve
//	  room      anyone        anyone        —             the disk has room
//	  making    anyone        being made    —             out of the reserve
//	  full      but a quarter for frees     none          no room for a reserve
//	  last      for frees     none          none          no room for a next segment
//
// "Anyone" means any batch; "frees" are batches that only give room back: deletes,
// unlocks, and what compaction moves. On a full disk only these may use the next segment.
// So it is empty when the log gets to it, and has room for everything that is live in any
// older segment: compaction can always free one, whose blocks become the next segment
// again. Making the reserve is quick, because nothing is written to it. So the log knows
// one segment ahead whether the disk is full, and no batch has to wait to find out.
//
// A log with a single segment has nothing to compact: anyone may use all but a quarter of
// it.

const reserveName = "reserve"

func (o Options) reservePath() string { return path.Join(o.Dir, reserveName) }

// reserve makes a reserve of size bytes if there is none. dir must be held.
func (l *Log) reserve(size int64) error {
	l.mu.Lock()
	reserved := l.reserved
	l.mu.Unlock()
	if reserved > 0 {
		return nil
	}
	if err := l.o.makeReserve(size); err != nil {
		return err
	}
	l.mu.Lock()
	l.reserved = size
	l.mu.Unlock()
	return nil
}

// makeReserve makes the file. It uses one that is there already, perhaps in part. After
// an error nothing is left of it.
func (o Options) makeReserve(want int64) error {
	name := o.reservePath()
	f, err := o.FS.Create(name)
	if errors.Is(err, fs.ErrExist) {
		f, err = o.FS.Open(name)
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil && size > want {
		err = f.Truncate(want) // segments were larger once
	}
	if err == nil {
		err = f.Reserve(0, want)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, o.FS.Remove(name))
	}
	return err
}

// GiveReserve returns the blocks of the reserve to the disk, for writes that need new
// blocks in existing files. Prepare makes the reserve again. Any goroutine may call it.
func (l *Log) GiveReserve() error {
	l.dir.Lock()
	defer l.dir.Unlock()
	l.mu.Lock()
	reserved := l.reserved
	l.reserved = 0
	l.mu.Unlock()
	if reserved == 0 {
		return nil
	}
	return l.o.FS.Remove(l.o.reservePath())
}
