package db

import (
	"context"
	"io"

	"clouddragon/db/store"
	"clouddragon/internal/archive"
)

// These come from the store: see its Backup.
var (
	ErrBackups      = store.ErrBackups
	ErrBackupHold   = store.ErrBackupHold
	ErrBackupRoom   = store.ErrBackupRoom
	ErrBackupGrowth = store.ErrBackupGrowth
)

// BackupSize estimates the size of a backup in bytes.
func (d *DB) BackupSize() int64 { return d.store.BackupSize() }

// Backup writes an archive to w and returns its manifest. The archive holds everything as
// it was at one moment after the call. Other operations go on meanwhile. See store.Backup.
// program is the version of the program.
func (d *DB) Backup(ctx context.Context, w io.Writer, program string) (archive.Manifest, error) {
	m, err := d.Copy(ctx, w, program)
	if err == nil {
		d.backedUp.Store(m.Time.UnixNano())
	}
	return m, err
}

// Copy is Backup for a standby, whose data is no backup: Stats does not count it as one.
func (d *DB) Copy(ctx context.Context, w io.Writer, program string) (archive.Manifest, error) {
	return d.store.Backup(ctx, w, program)
}
