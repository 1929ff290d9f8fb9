package names

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"clouddragon/internal/format"
)

// The manifest names the runs that make up the index:
//
//	 0  magic     8  "cdnamesm"
//	 8  version   4  1
//	12  ID       16  of the data directory
//	28  seq       8  as passed to Save
//	36  count     4  of runs
//	40  runs         the newest first, each: u64 number, u64 bytes of its file
//	    checksum  4  crc32c of all before it
const (
	manifestName = "manifest"

	// Part of the file format, never changed; sizes are in bytes.
	manifestMagic   = "cdnamesm"
	manifestVersion = 1
	manifestHead    = 40
	manifestRun     = 16
)

// maxRuns is more than the number of runs that an index ever has.
const maxRuns = 1000

type manifest struct {
	id   [16]byte
	seq  uint64
	runs []runRef
}

// readManifest reads the manifest. If o.ID is zero, it accepts that of any data directory.
func readManifest(o *Options) (m manifest, err error) {
	f, err := o.FS.Open(path.Join(o.Dir, manifestName))
	if err != nil {
		return m, err
	}
	size, err := f.Size()
	var b []byte
	if err == nil && size <= manifestHead+maxRuns*manifestRun+4 {
		b = make([]byte, size)
		if size > 0 {
			_, err = f.ReadAt(b, 0)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestName, err)
	}
	n := len(b) - 4
	if n < manifestHead || string(b[:8]) != manifestMagic || le.Uint32(b[n:]) != crc32.Checksum(b[:n], format.Castagnoli) ||
		le.Uint32(b[8:]) != manifestVersion || int(le.Uint32(b[36:]))*manifestRun != n-manifestHead {
		return m, fmt.Errorf("%w: %s fails its checksum", ErrDamaged, manifestName)
	}
	m.id = [16]byte(b[12:28])
	if o.ID != [16]byte{} && m.id != o.ID {
		return m, fmt.Errorf("%w: %s belongs to another data directory", ErrDamaged, manifestName)
	}
	m.seq = le.Uint64(b[28:])
	for at := manifestHead; at < n; at += manifestRun {
		m.runs = append(m.runs, runRef{le.Uint64(b[at:]), int64(le.Uint64(b[at+8:]))})
	}
	return m, nil
}

// write replaces the manifest, durably.
func (m *manifest) write(o *Options) error {
	b := append([]byte(nil), manifestMagic...)
	b = le.AppendUint32(b, manifestVersion)
	b = append(b, o.ID[:]...)
	b = le.AppendUint64(b, m.seq)
	b = le.AppendUint32(b, uint32(len(m.runs)))
	for _, r := range m.runs {
		b = le.AppendUint64(b, r.number)
		b = le.AppendUint64(b, uint64(r.size))
	}
	b = le.AppendUint32(b, crc32.Checksum(b, format.Castagnoli))
	name := path.Join(o.Dir, manifestName)
	tmp := name + ".tmp"
	if err := o.FS.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := o.FS.Create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, o.FS.Remove(tmp))
	}
	if err := o.FS.Rename(tmp, name); err != nil {
		return err
	}
	return o.FS.SyncDir(o.Dir)
}
