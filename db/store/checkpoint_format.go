package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/internal/format"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// The CHECKPOINT file holds two copies of one record, the first at 0, the second in the middle
// of the file. Both are written at every checkpoint, one after the other, so if a crash tears
// one, or one is damaged later, the other is good. A copy that is in doubt is written first.
// The newest good one counts. It says that the tables are complete up to a place in the log,
// and that the log was durable up to there. It also notes the moment: database time never
// starts before it.
//
//	 0  magic "CDCHKPT\n"
//	 8  u32 format version
//	12  u32 crc32c of bytes 16 to length
//	16  u32 length of the record in bytes
//	20  u32 number of segments
//	24  directory ID, 16 bytes: every file of a data directory carries it
//	40  u64 number of this checkpoint
//	48  log position: u64 segment, u64 offset, u64 next batch, u32 checksum of the batch before
//	76  u32 room for one copy in bytes: the file is twice as long
//	80  u64 tokens: every token handed out is below
//	88  u64 version: the newest version of a value
//	96  the moment of the checkpoint, see commit.MomentSize
//	112 4 tables: u64 size of the file in bytes, u64 slots in use (the high-water mark)
//	176 the segments of the log that count, ascending: uvarint differences
const (
	checkpointName    = "CHECKPOINT"
	checkpointMagic   = "CDCHKPT\n" // part of the file format, never changed
	checkpointVersion = 2
	checkpointHead    = 176
	// checkpointCopy is the room for one copy in bytes: enough for 100,000 segments.
	checkpointCopy = 256 << 10
)

var le = binary.LittleEndian

// ErrFormat is returned when a data directory was written by another version of
// the program, whose files this one does not read.
var ErrFormat = errors.New("the data directory is another version's")

// checkpoint is one record of the CHECKPOINT file.
type checkpoint struct {
	ID       [16]byte
	Room     int64
	Number   uint64
	Log      wal.Pos
	Tokens   uint64
	Version  uint64
	Moment   commit.Moment
	Sizes    [len(slots.Classes)]int64
	Used     [len(slots.Classes)]uint64
	Segments []uint64
}

func (c *checkpoint) encode() []byte {
	b := make([]byte, checkpointHead, checkpointHead+2*len(c.Segments))
	copy(b, checkpointMagic)
	le.PutUint32(b[8:], checkpointVersion)
	le.PutUint32(b[20:], uint32(len(c.Segments)))
	copy(b[24:], c.ID[:])
	le.PutUint64(b[40:], c.Number)
	le.PutUint64(b[48:], c.Log.Segment)
	le.PutUint64(b[56:], uint64(c.Log.Offset))
	le.PutUint64(b[64:], c.Log.Seq)
	le.PutUint32(b[72:], c.Log.Sum)
	le.PutUint32(b[76:], uint32(c.Room))
	le.PutUint64(b[80:], c.Tokens)
	le.PutUint64(b[88:], c.Version)
	c.Moment.Put(b[96:])
	for i := range c.Sizes {
		le.PutUint64(b[112+16*i:], uint64(c.Sizes[i]))
		le.PutUint64(b[120+16*i:], c.Used[i])
	}
	last := uint64(0)
	for _, s := range c.Segments {
		b = binary.AppendUvarint(b, s-last)
		last = s
	}
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[12:], crc32.Checksum(b[16:], format.Castagnoli))
	return b
}

// decodeCheckpoint reads one copy. The error says what is wrong with it.
func decodeCheckpoint(b []byte) (*checkpoint, error) {
	if len(b) < checkpointHead || string(b[:8]) != checkpointMagic {
		return nil, errors.New("no checkpoint record")
	}
	if v := le.Uint32(b[8:]); v != checkpointVersion {
		return nil, fmt.Errorf("%w: it has format %d, and this program reads format %d", ErrFormat, v, checkpointVersion)
	}
	n := le.Uint32(b[16:])
	if n < checkpointHead || int64(n) > int64(len(b)) {
		return nil, fmt.Errorf("impossible length %d", n)
	}
	b = b[:n]
	if got, want := crc32.Checksum(b[16:], format.Castagnoli), le.Uint32(b[12:]); got != want {
		return nil, fmt.Errorf("checksum %08x, want %08x", got, want)
	}
	c := &checkpoint{
		ID:      [16]byte(b[24:40]),
		Room:    int64(le.Uint32(b[76:])),
		Number:  le.Uint64(b[40:]),
		Log:     wal.Pos{Segment: le.Uint64(b[48:]), Offset: int64(le.Uint64(b[56:])), Seq: le.Uint64(b[64:]), Sum: le.Uint32(b[72:])},
		Tokens:  le.Uint64(b[80:]),
		Version: le.Uint64(b[88:]),
		Moment:  commit.GetMoment(b[96:]),
	}
	for i := range c.Sizes {
		c.Sizes[i] = int64(le.Uint64(b[112+16*i:]))
		c.Used[i] = le.Uint64(b[120+16*i:])
	}
	last, rest := uint64(0), b[checkpointHead:]
	for range le.Uint32(b[20:]) {
		d, w := binary.Uvarint(rest)
		if w <= 0 || d == 0 {
			return nil, errors.New("the list of segments is cut off")
		}
		last, rest = last+d, rest[w:]
		c.Segments = append(c.Segments, last)
	}
	return c, nil
}

// checkpointFile is the open CHECKPOINT. It belongs to the goroutine that holds
// Store.checkpointing.
type checkpointFile struct {
	f     disk.File
	fault error // what was wrong with one of the copies when it was opened
	first int   // the copy to be written first: the other is good and durable
}

// createCheckpoint makes the file with its first record. It is the last file that a new data
// directory gets: without it there is no data directory.
func createCheckpoint(fs disk.FS, dir string, c *checkpoint) (err error) {
	name, tmp := path.Join(dir, checkpointName), path.Join(dir, checkpointName+".tmp")
	if err := removeIfThere(fs, tmp); err != nil {
		return err
	}
	f, err := fs.Create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := f.Allocate(0, 2*c.Room); err != nil {
		return err
	}
	for _, off := range []int64{0, c.Room} {
		if _, err := f.WriteAt(c.encode(), off); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	err, f = f.Close(), nil
	if err != nil {
		return err
	}
	if err := fs.Rename(tmp, name); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// openCheckpoint opens the file and returns its newest good record. The error is
// fs.ErrNotExist if there is no file.
func openCheckpoint(fs disk.FS, dir string) (*checkpointFile, *checkpoint, error) {
	name := path.Join(dir, checkpointName)
	f, err := fs.Open(name)
	if err != nil {
		return nil, nil, err
	}
	best, first, fault, err := readCheckpoint(f)
	if errors.Is(err, ErrFormat) {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w; start the version that wrote it, or begin with an empty directory", checkpointName, err), f.Close())
	}
	if err != nil {
		err = &Damage{File: checkpointName, What: err.Error()}
		return nil, nil, errors.Join(err, f.Close())
	}
	return &checkpointFile{f, fault, first}, best, nil
}

// readCheckpoint returns the newest good record, the index of the other copy, and as fault
// what is wrong with a copy.
func readCheckpoint(f disk.File) (best *checkpoint, other int, fault, err error) {
	size, err := f.Size()
	if err != nil {
		return nil, 0, nil, err
	}
	half := size / 2
	var faults []error
	for i, off := range []int64{0, half} {
		b := make([]byte, half)
		if _, err := f.ReadAt(b, off); err != nil && err != io.EOF {
			return nil, 0, nil, err
		}
		c, err := decodeCheckpoint(b)
		if err != nil {
			faults = append(faults, err)
		} else if best == nil || c.Number > best.Number {
			best, other = c, 1-i
		}
	}
	if best == nil && errors.Is(faults[0], ErrFormat) && errors.Is(faults[1], ErrFormat) {
		return nil, 0, nil, faults[0]
	}
	if best == nil {
		return nil, 0, nil, fmt.Errorf("neither of its two copies is good (%v; %v)", faults[0], faults[1])
	}
	if size != 2*best.Room {
		return nil, 0, nil, fmt.Errorf("it has %d bytes, want %d", size, 2*best.Room)
	}
	return best, other, errors.Join(faults...), nil
}

// write writes c as the newest record to both copies, and syncs each before the next is
// touched. On a full disk the error is errNoRoom: one copy is as good as before, and the next
// write begins with the other. It must have a higher number.
func (f *checkpointFile) write(c *checkpoint) error {
	b := c.encode()
	if int64(len(b)) > c.Room {
		return fmt.Errorf("%s: %d segments do not fit: make log.segment larger", checkpointName, len(c.Segments))
	}
	for range 2 {
		_, err := f.f.WriteAt(b, int64(f.first)*c.Room)
		if disk.IsFull(err) {
			return fmt.Errorf("%w: %w", errNoRoom, err)
		}
		if err == nil {
			err = f.f.Sync()
		}
		if err != nil {
			return err
		}
		f.first = 1 - f.first
	}
	return nil
}

// holds makes sure that the disk has one of the records.
func (f *checkpointFile) holds(records ...*checkpoint) error {
	for _, c := range records {
		for i := range int64(2) {
			held, err := f.f.Holds(c.encode(), i*c.Room)
			if held || err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%s: the record that can be read is not on the disk", checkpointName)
}

func removeIfThere(fs disk.FS, name string) error {
	if err := fs.Remove(name); err != nil && !isNotExist(err) {
		return err
	}
	return nil
}
