package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"clouddragon/internal/archive"
	"clouddragon/internal/disk"
)

// A restore makes a data directory of a backup:
//
//	read the backup to its end, and check every byte
//	read it once more, into the directory "restoring" within the new one
//	raise the next version and token in CHECKPOINT, so that none is used twice
//	check the copy as `clouddragon verify` does
//	sync it, and move it to its place, CHECKPOINT last: without it no server starts there
//
// After an error everything that was made is removed.

// restoringName is the directory in which a restore works. A server does not start if it
// exists.
const restoringName = "restoring"

const (
	// How many versions and tokens a restored server skips: more than the server that was
	// backed up can have used since. Four million a second is more than one disk can do.
	raiseLeast     = 1 << 40
	raisePerSecond = 1 << 22
)

// RestoreOptions say what to restore, and where.
type RestoreOptions struct {
	Dir string // the data directory: missing, or empty
	// Open opens the backup. It is read twice.
	Open func() (io.ReadCloser, error)
	Keep bool // continue with the versions and tokens of the copy
	// Change changes the copy before it is moved to its place; nil: nothing is to
	// be changed. segment is the size of the log's segments.
	Change func(dir string, segment int64) error
	Extent int // as in Options

	Size     int64    // of the backup in bytes, for Progress; 0: it is not known
	Progress Progress // nil: nobody looks
}

// Restored describes what a restore has made.
type Restored struct {
	Manifest archive.Manifest
	Report   Report
	// The next version and token are above Version and Tokens. With Keep they are those of the
	// backup.
	Version, Tokens uint64
}

// Restore makes a data directory from a backup. After an error it leaves nothing behind.
// The error is archive.ErrCut or archive.ErrChanged if the backup is not as it was written.
func Restore(ctx context.Context, o RestoreOptions) (_ Restored, err error) {
	r := restore{o: o, ctx: ctx, work: filepath.Join(o.Dir, restoringName), meter: newMeter(o.Progress)}
	r.meter.expect(3 * o.Size) // it is read twice, and then the copy
	if err := checkEmpty(o.Dir); err != nil {
		return Restored{}, err
	}
	m, err := r.read(nil)
	if err != nil {
		return Restored{}, err
	}
	r.done.Manifest = *m
	if err := r.raise(); err != nil {
		return Restored{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.undo())
		}
	}()
	if err := r.makeDir(); err != nil {
		return Restored{}, err
	}
	if err := r.write(); err != nil {
		return Restored{}, err
	}
	if err := r.check(); err != nil {
		return Restored{}, err
	}
	if o.Change != nil {
		if err := o.Change(r.work, r.segment); err != nil {
			return Restored{}, err
		}
	}
	r.meter.end()
	return r.done, r.place()
}

// restore is an active restore.
type restore struct {
	o       RestoreOptions
	ctx     context.Context
	work    string   // the working directory
	made    []string // directories that were made, outermost first
	moved   []string // files that were moved to their place
	segment int64    // the size of the log's segments
	done    Restored
	meter   *meter
}

// checkEmpty returns an error unless the directory is missing or empty.
func checkEmpty(dir string) error {
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%s is not empty, it holds %s: restore into a new directory", dir, names[0].Name())
	}
	return nil
}

// read reads the backup to its end.
func (r *restore) read(file func(name string, size int64, r io.Reader) error) (_ *archive.Manifest, err error) {
	f, err := r.o.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return archive.Read(contextReader{r.ctx, f, r.meter}, file)
}

// contextReader ends with its context, and counts the bytes that are read.
type contextReader struct {
	ctx   context.Context
	r     io.Reader
	meter *meter
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.meter.add(int64(n))
	return n, err
}

// raise computes the version and the token above which the next ones are.
func (r *restore) raise() error {
	m := &r.done.Manifest
	raise := uint64(0)
	if !r.o.Keep {
		raise = raiseLeast + raisePerSecond*uint64(max(0, time.Since(m.Time)/time.Second))
	}
	r.done.Version, r.done.Tokens = m.Version+raise, m.Tokens+raise
	if max(m.Version, m.Tokens, r.done.Version, r.done.Tokens) > math.MaxInt64/2 {
		return fmt.Errorf("version %d or token %d of the copy cannot be raised by %d: restore it with -keep", m.Version, m.Tokens, raise)
	}
	return nil
}

// makeDir makes the directory, its missing parents, and the working directory.
func (r *restore) makeDir() error {
	var missing []string
	for dir := filepath.Clean(r.o.Dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append([]string{dir}, missing...)
	}
	mkdir := func(dirs ...string) error {
		for _, dir := range dirs {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			r.made = append(r.made, dir)
		}
		return nil
	}
	if err := mkdir(missing...); err != nil {
		return err
	}
	// On btrfs this turns off copy-on-write for everything made below it.
	if err := (disk.OS{}).MkdirAll(r.o.Dir); err != nil {
		return err
	}
	return mkdir(r.work, filepath.Join(r.work, archive.LogDir))
}

// write writes and syncs the files, and CHECKPOINT with the raised numbers.
func (r *restore) write() error {
	m, err := r.read(func(name string, size int64, from io.Reader) error {
		if filepath.Dir(name) == archive.LogDir {
			r.segment = max(r.segment, size) // the last one is shorter
		}
		return r.file(filepath.Join(r.work, name), from)
	})
	if err != nil {
		return err
	}
	if m.Time != r.done.Manifest.Time {
		return errors.New("the backup was replaced while it was restored")
	}
	f, c, err := openCheckpoint(disk.OS{}, r.work)
	if err != nil {
		return err
	}
	if r.done.Version > r.done.Manifest.Version {
		c.Version, c.Tokens = r.done.Version, r.done.Tokens
		err = f.write(c)
	}
	return errors.Join(err, f.f.Close())
}

// file makes a file, or replaces an existing one.
func (r *restore) file(name string, from io.Reader) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	return f.Sync()
}

// check verifies the copy. Damage in it was there when the backup was made.
func (r *restore) check() (err error) {
	var first *Damage
	count := 0
	o := Options{FS: disk.OS{ReadOnly: true}, Dir: r.work, Extent: r.o.Extent}
	if r.o.Size > 0 {
		o.Progress = func(done, total int64) { // as if the copy were as long as the backup
			r.meter.set(2*r.o.Size + int64(float64(done)/float64(max(total, 1))*float64(r.o.Size)))
		}
	}
	r.done.Report, err = VerifyWith(o, func(d *Damage) {
		if count++; first == nil {
			first = d
		}
	})
	if err == nil && first != nil {
		err = fmt.Errorf("the server's directory was damaged when it was backed up, in %d places; the first: %w; `tar -x` unpacks what there is", count, first)
	}
	return err
}

// place moves the files to their place.
func (r *restore) place() error {
	var names []string
	err := filepath.WalkDir(r.work, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			err = os.Chmod(name, 0o600) // including files that Change made
		}
		return err
	})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(r.work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != checkpointName && e.Name() != "LOCK" {
			names = append(names, e.Name())
		}
	}
	sync := func(dirs ...string) error {
		for _, dir := range dirs {
			if err := (disk.OS{}).SyncDir(dir); err != nil {
				return err
			}
		}
		return nil
	}
	move := func(name string) error {
		to := filepath.Join(r.o.Dir, name)
		if err := os.Rename(filepath.Join(r.work, name), to); err != nil {
			return err
		}
		r.moved = append(r.moved, to)
		return nil
	}
	if err := sync(filepath.Join(r.work, archive.LogDir), r.work); err != nil {
		return err
	}
	for _, name := range names {
		if err := move(name); err != nil {
			return err
		}
	}
	if err := sync(r.o.Dir); err != nil {
		return err
	}
	if err := move(checkpointName); err != nil {
		return err
	}
	if err := os.RemoveAll(r.work); err != nil {
		return err
	}
	return syncDirs(disk.OS{}, filepath.ToSlash(filepath.Clean(r.o.Dir)))
}

// undo removes everything that was made.
func (r *restore) undo() error {
	var errs []error
	for _, name := range r.moved {
		errs = append(errs, os.RemoveAll(name))
	}
	errs = append(errs, os.RemoveAll(r.work))
	for i := len(r.made) - 1; i >= 0; i-- {
		if err := os.Remove(r.made[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
