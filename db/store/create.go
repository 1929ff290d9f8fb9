package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// create makes a new data directory if there is none. CHECKPOINT comes last: without it
// nothing was ever acknowledged, and the other files are left from an interrupted creation. If
// they hold data, somebody removed CHECKPOINT, which is damage.
func create(o *Options) error {
	f, err := o.FS.Open(path.Join(o.Dir, checkpointName))
	if err == nil {
		return f.Close()
	}
	if !isNotExist(err) {
		return err
	}
	if err := neverUsed(o); err != nil {
		return err
	}
	c := checkpoint{Room: o.CheckpointRoom, Number: 1, Tokens: 1}
	_, wall := o.Clock()
	c.Moment = commit.Moment{Now: wall, Wall: wall}
	if _, err := rand.Read(c.ID[:]); err != nil {
		return err
	}
	if err := slots.Create(slotOptions(o, c.ID)); err != nil {
		return err
	}
	if c.Log, err = wal.Create(logOptions(o, c.ID)); err != nil {
		return err
	}
	c.Segments = []uint64{c.Log.Segment}
	for i := range c.Sizes {
		c.Sizes[i] = slots.InitialSize(o.Extent)
	}
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return err
	}
	return createCheckpoint(o.FS, o.Dir, &c)
}

// syncDirs makes the names in a directory durable, and the names of the directory itself and
// of its parents, each of which MkdirAll may have made. Every start does it, because the start
// before may have failed right after making them.
func syncDirs(fsys disk.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	for last := dir; ; last = dir {
		if dir = path.Dir(dir); dir == last {
			return nil
		}
		err := fsys.SyncDir(dir)
		if errors.Is(err, fs.ErrPermission) {
			return nil // not made by MkdirAll, which makes only readable directories, and neither are its parents
		}
		if err != nil {
			return err
		}
	}
}

// neverUsed checks that tables and log without a CHECKPOINT are empty, and that no restore was
// interrupted.
func neverUsed(o *Options) error {
	var names []string
	for class := range slots.Classes {
		names = append(names, slots.FileName(class))
	}
	segments, err := o.FS.ReadDir(path.Join(o.Dir, "log"))
	if err != nil && !isNotExist(err) {
		return err
	}
	for _, s := range segments {
		if strings.HasSuffix(s, ".seg") {
			names = append(names, "log/"+s)
		}
	}
	if _, err := o.FS.ReadDir(path.Join(o.Dir, restoringName)); err == nil {
		return &Damage{File: restoringName, What: "a restore into this directory did not end: empty the directory and restore again"}
	} else if !isNotExist(err) {
		return err
	}
	for _, name := range names {
		used, err := holdsData(o.FS, path.Join(o.Dir, name))
		if err != nil {
			return err
		}
		if used {
			return &Damage{File: checkpointName, What: "the file is missing, but " + name + " holds data"}
		}
	}
	return nil
}

// holdsData reports whether a file has data after its header page.
func holdsData(fsys disk.FS, name string) (used bool, err error) {
	f, err := fsys.Open(name)
	if isNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	const page = 4096
	buf := make([]byte, 1<<20)
	for off := int64(page); off < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			break
		}
		if len(bytes.TrimLeft(buf[:n], "\x00")) > 0 {
			return true, nil
		}
		off += int64(n)
	}
	return false, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
