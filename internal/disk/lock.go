package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// LockedError is returned by Lock when another process holds the lock.
type LockedError struct {
	Name string // the lock file
	By   string // what the holder wrote about itself
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is locked by another process (%s)", e.Name, e.By)
}

// Locker is an FS that can keep other processes out.
type Locker interface {
	// Lock takes the lock file, made if missing, for this process until the
	// returned Closer is closed or the process ends, and writes into it who
	// has it. Held by another process: a *LockedError.
	Lock(name, who string) (io.Closer, error)
}

// Lock takes the lock with flock, which the kernel gives back however the process ends.
func (o OS) Lock(name, who string) (io.Closer, error) {
	flag := os.O_RDWR | os.O_CREATE
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	if err := flock(f, who, o.ReadOnly); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func flock(f *os.File, who string, readOnly bool) error {
	how := unix.LOCK_EX
	if readOnly {
		how = unix.LOCK_SH
	}
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		by, err := io.ReadAll(io.LimitReader(f, 256))
		if err != nil {
			return err
		}
		return &LockedError{Name: f.Name(), By: strings.TrimSpace(string(by))}
	}
	if err != nil {
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	if readOnly {
		return nil
	}
	// Only a note for a second server that finds the lock taken: a full disk must not keep
	// the server from starting.
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(who+"\n"), 0); err != nil && !IsFull(err) {
		return err
	}
	return nil
}
