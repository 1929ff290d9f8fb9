package main

import (
	"log/slog"
	"os"

	"clouddragon/internal/disk"
)

// home is the data directory as it was when the server opened it. A nil home is
// one on a disk of a test.
type home struct {
	path string
	info os.FileInfo
}

func watchHome(fsys disk.FS, path string) *home {
	if _, real := fsys.(disk.OS); !real {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil // whatever is wrong shows in what the database does
	}
	return &home{path, info}
}

// gone reports whether the directory is gone, and says so in the log. What fails
// then names a file in it, if anything fails at all: files that are open can be
// written on.
func (h *home) gone(log *slog.Logger) bool {
	if h == nil {
		return false
	}
	info, err := os.Stat(h.path)
	if err == nil && os.SameFile(info, h.info) {
		return false
	}
	log.Error("the data directory is gone: it was removed, renamed or unmounted while the server used it", "data", h.path, "err", err)
	return true
}
