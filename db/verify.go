package db

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/names"
)

// Report is what Verify read.
type Report struct {
	store.Report
	// Names is the index of names; nil if there is none or it is damaged. The next
	// start rebuilds it then.
	Names *names.Report
}

// Verify reads every slot and every record of a data directory, and the index of names,
// and reports all damage. It changes nothing. The error is a *disk.LockedError where a
// server has the directory, or says why it could not be read.
// progress may be nil.
func Verify(fsys disk.FS, dir string, report func(*disk.Damage), progress store.Progress) (Report, error) {
	r, err := store.Verify(fsys, dir, report, progress)
	rep := Report{Report: r}
	if err != nil {
		return rep, err
	}
	rep.Names, err = verifyNames(fsys, dir, report)
	return rep, err
}

// verifyNames checks the index of names; nil if there is none or it is damaged.
func verifyNames(fsys disk.FS, dir string, report func(*disk.Damage)) (_ *names.Report, err error) {
	if l, ok := fsys.(disk.Locker); ok {
		var lock io.Closer
		if lock, err = l.Lock(path.Join(dir, "LOCK"), ""); err == nil {
			defer func() { err = errors.Join(err, lock.Close()) }()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	r, err := names.Check(names.Options{FS: fsys, Dir: path.Join(dir, "names")})
	switch {
	case err == nil:
		return &r, nil
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, names.ErrDamaged):
		return nil, nil
	case disk.IsNoDescriptor(err):
		return nil, err
	}
	report(&disk.Damage{File: "names", What: err.Error(), Lost: "nothing, since the next start rebuilds it"})
	return nil, nil
}
