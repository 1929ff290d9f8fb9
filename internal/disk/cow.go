package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Some file systems write what is overwritten to a new place, for which a full
// disk has no room: btrfs always, XFS and others where a copy or a snapshot
// shares the blocks.

// noCopyOnWrite is FS_NOCOW_FL: files made in a directory that has it are
// overwritten in place, as long as no snapshot shares them.
const noCopyOnWrite = 0x00800000

// overwriteInPlace turns copy-on-write off for what will be made in a directory,
// if it is empty and on btrfs. Elsewhere there is nothing to turn off.
func overwriteInPlace(dir string) (err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Type != unix.BTRFS_SUPER_MAGIC {
		return nil // whoever uses the directory will report what is wrong with it
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return call(d, func(fd int) error {
		flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		if err == nil && flags&noCopyOnWrite == 0 {
			err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|noCopyOnWrite)
		}
		if err != nil {
			return &os.PathError{Op: "turn copy-on-write off", Path: dir, Err: err}
		}
		return nil
	})
}

// Unshare asks for blocks that no copy shares, which XFS can give.
func (o *osFile) Unshare() error {
	if o.readOnly {
		return o.fail("unshare", ErrReadOnly)
	}
	size, err := o.Size()
	if err != nil || size == 0 {
		return err
	}
	err = o.call(func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_UNSHARE_RANGE, 0, size) })
	if err != nil && !noFallocate(err) {
		return o.fail("unshare", err)
	}
	return nil
}
