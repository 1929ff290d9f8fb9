package main

import (
	"log/slog"
	"os"

	"clouddragon/internal/disk"
)

// home is the data directory as it was when the server opened it. It is nil on the
// simulated disk of a test.
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
		return nil // opening the database reports the fault
	}
	return &home{path, info}
}

// gone reports whether the directory was removed, and logs it. Otherwise this could go
// unnoticed, because open files can still be written.
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
