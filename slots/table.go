package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"strconv"
	"sync"
	"sync/atomic"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
)

// The header page of a table file. All numbers are little-endian.
//
//	offset size
//	   0     8   magic
//	   8     4   format version
//	  12     4   slot size
//	  16    16   the data directory's ID
//	  32         zeros
//	4092     4   checksum: crc32c of all before it
//
// Part of the file format, never changed.
const (
	headerSize    = 4096
	headerMagic   = "CDslots\n"
	headerVersion = 2
	headerSum     = headerSize - 4
)

// table is one size class.
type table struct {
	name    string // of the file, with its directory
	size    int    // of a slot
	extent  int64  // bytes
	perEach uint64 // slots in an extent
	file    disk.File

	growing sync.Mutex // held while the table grows: one at a time

	// Guarded by Tables.mu.
	extents []*extent
	used    uint64 // high-water mark: the slots below it hold a good image
	live    uint64 // slots in use

	// Owned by the writer.
	next uint64   // high-water mark of Alloc
	free []uint64 // numbers below next that Alloc may return again

	// kept has the images for which the disk has no room: they override what the file
	// holds. A slice in it is never changed, because a look-up may have returned it.
	// Guarded by Tables.mu; nil if there are none.
	kept map[uint64][]byte

	known int // extents that the checkpoint knows, for recovery
}

// extent is a mapped piece of a table.
type extent struct {
	disk.Mapping
	dirty atomic.Bool // stores were made since the last Sync began
}

func (t *table) capacity() uint64 { return uint64(len(t.extents)) * t.perEach }

func (t *table) fileSize(extents int) int64 { return headerSize + int64(extents)*t.extent }

// slot returns the image of slot n, mapped or kept.
func (t *table) slot(n uint64) []byte {
	if t.kept != nil {
		if image, ok := t.kept[n]; ok {
			return image
		}
	}
	off := int(n%t.perEach) * t.size
	return t.extents[n/t.perEach].Bytes()[off : off+t.size : off+t.size]
}

// store puts an image into slot n, or keeps it if the disk has no room for its page.
func (t *table) store(n uint64, image []byte) error {
	err := t.storeMapped(n, image)
	if disk.IsFull(err) {
		if t.kept == nil {
			t.kept = make(map[uint64][]byte)
		}
		t.kept[n] = bytes.Clone(image)
		return nil
	}
	t.unkeep(n)
	return err
}

func (t *table) unkeep(n uint64) {
	if t.kept == nil {
		return
	}
	if delete(t.kept, n); len(t.kept) == 0 {
		t.kept = nil
	}
}

func (t *table) storeMapped(n uint64, image []byte) error {
	e := t.extents[n/t.perEach]
	err := e.Store(int(n%t.perEach)*t.size, image)
	// After the store: a Sync between the two would mark the extent clean without it.
	e.dirty.Store(true)
	return err
}

// retry stores the kept images for which there is room by now.
func (t *table) retry() error {
	for n, image := range t.kept {
		if err := t.storeMapped(n, image); err != nil {
			return err
		}
		t.unkeep(n)
	}
	return nil
}

// FileName returns the name of a class's file in the data directory.
func FileName(class int) string { return "slots-" + strconv.Itoa(Classes[class]) }

// InitialSize returns the size in bytes of each file that Create makes.
func InitialSize(extent int) int64 { return headerSize + int64(extent) }

// BytesTo returns how many bytes the header and the first n slots take in a class's file.
func BytesTo(class int, n uint64) int64 { return headerSize + int64(n)*int64(Classes[class]) }

// ReadFile reads a part of a class's file below its high-water mark while the writer
// continues. A slot that is stored to meanwhile may be read torn.
func (t *Tables) ReadFile(class int, p []byte, off int64) error {
	n, err := t.tables[class].file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, t.tables[class].name, err)
}

// header returns the header page of a table file.
func (c Codec) header(class int) []byte {
	page := make([]byte, headerSize)
	copy(page, headerMagic)
	binary.LittleEndian.PutUint32(page[8:], headerVersion)
	binary.LittleEndian.PutUint32(page[12:], uint32(Classes[class]))
	copy(page[16:32], c.ID[:])
	binary.LittleEndian.PutUint32(page[headerSum:], crc32.Checksum(page[:headerSum], format.Castagnoli))
	return page
}

// checkHeader returns what is wrong with the header page of a class's file, "" if
// nothing is.
func (c Codec) checkHeader(class int, page []byte) string {
	if string(page[:len(headerMagic)]) != headerMagic {
		return fmt.Sprintf("it starts with %q, a slot table starts with %q", page[:len(headerMagic)], headerMagic)
	}
	if v := binary.LittleEndian.Uint32(page[8:]); v != headerVersion {
		return fmt.Sprintf("its format version is %d, this program reads version %d", v, headerVersion)
	}
	got, want := binary.LittleEndian.Uint32(page[headerSum:]), crc32.Checksum(page[:headerSum], format.Castagnoli)
	if got != want {
		return fmt.Sprintf("its header has the checksum %08x, wanted %08x: the header is damaged", got, want)
	}
	if size := binary.LittleEndian.Uint32(page[12:]); size != uint32(Classes[class]) {
		return fmt.Sprintf("it has slots of %d bytes, wanted %d: it is the file of another table", size, Classes[class])
	}
	if id := page[16:32]; string(id) != string(c.ID[:]) {
		return fmt.Sprintf("it belongs to the data directory with the ID %x, this one has %x", id, c.ID)
	}
	return ""
}

// createTable makes a class's file with one extent.
func createTable(o Options, class int) error {
	name := path.Join(o.Dir, FileName(class))
	if err := o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := o.FS.Create(name)
	if err != nil {
		return err
	}
	err = f.Allocate(0, InitialSize(o.Extent))
	if err == nil {
		_, err = f.WriteAt(Codec{o.ID}.header(class), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// openTable opens a class's file and maps it.
func openTable(o Options, class int, want int64) (_ *table, err error) {
	t := &table{
		name:    path.Join(o.Dir, FileName(class)),
		size:    Classes[class],
		extent:  int64(o.Extent),
		perEach: uint64(o.Extent / Classes[class]),
	}
	t.file, err = o.FS.Open(t.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.damage(0, fmt.Sprintf("is missing, wanted a file of %d bytes", want))
	} else if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()

	size, err := t.file.Size()
	if err != nil {
		return nil, err
	}
	// An interrupted growth may have left a partial extent, which is ignored.
	extents := int((size - headerSize) / t.extent)
	if least := max(want, headerSize); size < headerSize || t.fileSize(extents) < least {
		return nil, t.damage(size, fmt.Sprintf("the file has %d bytes, wanted %d or more: it was cut short", size, least))
	}
	page := make([]byte, headerSize)
	if _, err := t.file.ReadAt(page, 0); err != nil {
		return nil, fmt.Errorf("read the header of %s: %w", t.name, err)
	}
	if bad := (Codec{o.ID}).checkHeader(class, page); bad != "" {
		return nil, t.damage(0, bad)
	}
	t.extents, err = t.mapExtents(0, extents)
	t.known = int((max(want, headerSize) - headerSize) / t.extent)
	return t, err
}

// damage returns a damage of the whole table.
func (t *table) damage(offset int64, what string) *disk.Damage {
	return &disk.Damage{File: path.Base(t.name), Offset: offset, What: what, Lost: "every slot from there on"}
}

// mapExtents maps n extents, starting with number first: all or none.
func (t *table) mapExtents(first, n int) ([]*extent, error) {
	extents := make([]*extent, 0, n)
	for i := first; i < first+n; i++ {
		m, err := t.file.Map(t.fileSize(i), int(t.extent))
		if err != nil {
			return nil, errors.Join(err, unmap(extents))
		}
		extents = append(extents, &extent{Mapping: m})
	}
	return extents, nil
}

func unmap(extents []*extent) error {
	var errs []error
	for _, e := range extents {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}

// close unmaps and closes the file. Reading a slot afterwards panics and does not fault.
func (t *table) close() error {
	extents := t.extents
	t.extents = nil
	return errors.Join(unmap(extents), t.file.Close())
}
