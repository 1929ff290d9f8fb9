package db

import (
	"context"
	"io"

	"clouddragon/db/store"
	"clouddragon/internal/archive"
)

// These are the store's: see its Backup.
var (
	ErrBackups      = store.ErrBackups
	ErrBackupHold   = store.ErrBackupHold
	ErrBackupRoom   = store.ErrBackupRoom
	ErrBackupGrowth = store.ErrBackupGrowth
)

// BackupSize returns how large a backup would be now, about, in bytes.
func (d *DB) BackupSize() int64 { return d.store.BackupSize() }

// Backup writes an archive to w that holds everything as it was at one moment
// after the call, while other operations go on, and returns its manifest: see
// store.Backup. program names the version of the program.
func (d *DB) Backup(ctx context.Context, w io.Writer, program string) (archive.Manifest, error) {
	m, err := d.store.Backup(ctx, w, program)
	if err == nil {
		d.backedUp.Store(m.Time.UnixNano())
	}
	return m, err
}
