package main

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"clouddragon/internal/archive"
)

// removeOld removes all but the newest backups from the directory of file, and returns their
// names. A file counts as a backup if it begins like one and its name differs from that of
// file only in its digits.
func removeOld(file string, keep int) (removed []string, err error) {
	dir, base := filepath.Split(file)
	d, err := os.Open(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	// Of two backups that do this at the same time, each would remove the other one.
	lockFile(d, unix.LOCK_EX)
	return removeOldFrom(d, dir, base, keep)
}

// removeOldFrom is removeOld for the file base in the directory d, whose name is dir.
func removeOldFrom(d *os.File, dir, base string, keep int) (removed []string, err error) {
	type old struct {
		name string
		info fs.FileInfo
	}
	file := dir + base
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == base }) {
		return nil, nil // the other one has removed this one
	}
	var all []old
	for _, e := range entries {
		if withoutDigits(e.Name()) != withoutDigits(base) || !e.Type().IsRegular() {
			continue
		}
		name := dir + e.Name()
		info, err := e.Info()
		is := false
		if err == nil {
			is, err = isBackup(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another backup may have removed it
			return nil, err
		}
		if is {
			all = append(all, old{name, info})
		}
	}
	// Newest first. The backup that was just made comes first, whatever the clock says.
	slices.SortFunc(all, func(a, b old) int {
		if a.name == file || b.name == file {
			return cmp.Compare(b2i(b.name == file), b2i(a.name == file))
		}
		return cmp.Or(b.info.ModTime().Compare(a.info.ModTime()), cmp.Compare(b.name, a.name))
	})
	for _, o := range all[min(keep, len(all)):] {
		err := os.Remove(o.name)
		if err == nil {
			removed = append(removed, o.name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
	}
	if len(removed) == 0 {
		return nil, nil
	}
	return removed, d.Sync()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// withoutDigits returns a name with each run of digits replaced by one NUL, which no name of a
// file has.
func withoutDigits(name string) string {
	var b []byte
	for i := range len(name) {
		switch c := name[i]; {
		case c < '0' || c > '9':
			b = append(b, c)
		case len(b) == 0 || b[len(b)-1] != 0:
			b = append(b, 0)
		}
	}
	return string(b)
}

// isBackup reports whether a file begins like a backup.
func isBackup(name string) (is bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := make([]byte, len(archive.First)+1)
	if _, err := io.ReadFull(f, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, nil
		}
		return false, err
	}
	return bytes.Equal(b, []byte(archive.First+"\x00")), nil
}
