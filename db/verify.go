package db

import (
	"clouddragon/db/store"
	"clouddragon/internal/disk"
)

// Verify is store.Verify.
func Verify(fsys disk.FS, dir string, report func(*disk.Damage), progress store.Progress) (store.Report, error) {
	return store.Verify(fsys, dir, report, progress)
}
