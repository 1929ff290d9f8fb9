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

	"clouddragon/internal/archive"
)

// removeOld removes all but the newest backups from the directory of file, and returns their
// names. A file counts as a backup if it begins like one and its name differs from that of
// file only in its digits.
func removeOld(file string, keep int) (removed []string, err error) {
	type old struct {
		name string
		info fs.FileInfo
	}
	dir, base := filepath.Split(file)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
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
	return removed, syncDir(cmp.Or(dir, "."))
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
