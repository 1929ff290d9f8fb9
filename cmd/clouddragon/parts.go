package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A backup is received into a temporary file, and holds a lock on it. A temporary file that nobody
// has locked was left by a backup that was killed.

// createPart makes and locks the temporary file of a backup.
func createPart(dir, base string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, "."+base+".*.part") // mode 0600
		if err != nil {
			return nil, err
		}
		lockFile(f, unix.LOCK_EX)
		// Another backup may have found and removed it before it was locked.
		if _, err = os.Lstat(f.Name()); err == nil {
			return f, nil
		}
		if err = errors.Join(ignore(err, fs.ErrNotExist), f.Close()); err != nil {
			return nil, err
		}
	}
}

// removeParts removes what killed backups have left of files whose names differ from base only in
// their digits.
func removeParts(dir, base string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if withoutDigits(e.Name()) == withoutDigits("."+base+".0.part") && e.Type().IsRegular() {
			if err := removePart(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removePart removes a temporary file unless a backup has locked it.
func removePart(name string) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // it is gone, or another user's
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !lockFile(f, unix.LOCK_EX|unix.LOCK_NB) {
		return nil // it is in use, or nobody knows
	}
	return ignore(os.Remove(name), fs.ErrNotExist)
}

// lockFile locks an open file or directory until it is closed. It returns false if another process
// has locked it, or if the file system has no such locks.
func lockFile(f *os.File, how int) bool {
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Flock(int(f.Fd()), how).(unix.Errno)
	}
	return err == 0
}

// ignore returns err, or nil if it is what.
func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}
