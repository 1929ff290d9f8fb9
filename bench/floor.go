package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// floorSync is how much each sync of the bare loop makes durable, in bytes.
const floorSync = 512

// syncs appends so many bytes to a file and calls fdatasync for each append, for a time, and
// returns how long each took. In a file that was filled with zeros ahead, as
// our log is, the sync need not commit the file's length too.
func syncs(ctx context.Context, dir string, bytes int, zeroed bool, d time.Duration) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, "floor")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	size := int64(1 << 40)
	if zeroed {
		size = 16 << 20
		if _, err := f.Write(make([]byte, size)); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	data := make([]byte, bytes)
	for i := range data {
		data[i] = byte(i)
	}
	var at int64
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		began := time.Now()
		if _, err := f.WriteAt(data, at%size); err != nil {
			return nil, err
		}
		at += int64(bytes)
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, context.Cause(ctx)
}

// sameDisk makes a directory for data beside the repository's files, in bin,
// which git ignores.
func sameDisk() (string, error) {
	if err := os.MkdirAll("bin", 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("bin", "bench-")
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}
