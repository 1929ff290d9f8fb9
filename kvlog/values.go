package kvlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/internal/hashindex"
)

// Values are the live values of a log: an index of 8 bytes a key, and the
// segments that it points into. The keys themselves are compared on disk.
//
// Apply and what recovery calls belong to one goroutine, the writer; the rest
// may be called by any. A location in the index is a segment's ordinal, a small
// number that it has while it holds values, and the record's offset in it, in
// units of 8 bytes.
type Values struct {
	log        *Log
	index      *hashindex.Index
	offsetBits int

	reads   atomic.Uint64
	damaged atomic.Uint64

	mu       sync.RWMutex // guards what follows; held for a moment, never during I/O
	holders  []*holder    // by ordinal; nil: free
	byNumber map[uint64]*holder
	last     int // the ordinal given last: they go round, so that a stale location meets no new segment
	live     int64
	total    int64
}

// holder is a segment that holds values.
type holder struct {
	seg     *segment
	ordinal int
	live    int64           // bytes of records that the index points to
	total   int64           // bytes of all value records and marks
	marks   int64           // bytes of marks that may still be needed
	ends    map[int64]int64 // live bytes whose time is over by the key, wall time in units of endUnit
}

// endUnit is how finely the ends of values are told apart in what counts as garbage, in ns.
const endUnit = int64(64e9)

func endOf(expires int64) int64 { return expires/endUnit + 1 }

// maxLocationBits is what an entry of the index has for a location.
var maxLocationBits = bits.Len64(hashindex.MaxLocation)

// ErrDamaged is returned when the value that a key has cannot be read: its
// record fails its checksum.
var ErrDamaged = errors.New("the stored value is damaged")

// NewValues returns the values of a log that was opened, none yet.
func NewValues(l *Log) *Values {
	largest := l.o.Segment
	for _, s := range l.segments {
		largest = max(largest, s.size)
	}
	return &Values{log: l, index: hashindex.New(), offsetBits: bits.Len64(uint64(largest-1) / 8), byNumber: make(map[uint64]*holder)}
}

// Hash returns a key's hash. It is keyed by the directory's ID, so nobody
// outside can choose keys that collide, and stays the same over restarts.
func (v *Values) Hash(acc, id string) uint64 {
	var room [16 + 1 + 64 + 255]byte
	b := append(room[:0], v.log.o.ID[:]...)
	b = append(b, uint8(len(acc)))
	b = append(b, acc...)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// Found is what was found of a key.
type Found struct {
	OK      bool // the index has it; its time may be over
	Loc     uint64
	Version uint64
	Expires int64
	Size    int // bytes of its record in the log

	seen  [3]uint64 // the entries that were looked at
	count int
}

// Find looks a key up, reading the heads of the records that may be its own. A
// record that cannot be read is ErrDamaged, unless another one is the key's.
func (v *Values) Find(acc, id string, hash uint64) (Found, error) {
	val, f, err := v.look(acc, id, hash, false)
	if err == nil && f.OK {
		f.Version, f.Expires = val.Version, val.Expires
		f.Size = RecordSize(valueHead + len(val.Acc) + len(val.ID) + len(val.Type) + val.Length)
	}
	return f, err
}

// Still says whether what was found of a key with that hash holds yet. It reads nothing.
func (v *Values) Still(f *Found, hash uint64) bool {
	var room [8]uint64
	now := v.index.Candidates(hash, room[:0])
	if f.OK {
		return slices.Contains(now, f.Loc)
	}
	if f.count > len(f.seen) {
		return false
	}
	for _, loc := range now {
		if !slices.Contains(f.seen[:f.count], loc) {
			return false
		}
	}
	return true
}

// Get reads a key's value, checked. OK is false if there is none. The value may be over.
func (v *Values) Get(acc, id string, hash uint64) (val Value, ok bool, err error) {
	v.reads.Add(1)
	val, f, err := v.look(acc, id, hash, true)
	return val, f.OK, err
}

// maxLooks is how often a look-up that met a segment being freed, or a record
// being moved, begins anew.
const maxLooks = 100

func (v *Values) look(acc, id string, hash uint64, data bool) (val Value, f Found, err error) {
	var room [8]uint64
	for range maxLooks {
		f = Found{}
		var bad error
		seen := v.index.Candidates(hash, room[:0])
		for i, loc := range seen {
			if i < len(f.seen) {
				f.seen[i] = loc
			}
			f.count++
			val, err := v.read(loc, data)
			if err != nil {
				bad = err
				continue
			}
			if val.is(acc, id) {
				f.OK, f.Loc = true, loc
				return val, f, nil
			}
		}
		var again [8]uint64
		if slices.Equal(seen, v.index.Candidates(hash, again[:0])) {
			if bad != nil {
				v.damaged.Add(1)
				err = fmt.Errorf("%w: %w", ErrDamaged, bad)
			}
			return Value{}, f, err
		}
	}
	return Value{}, f, fmt.Errorf("%w: it could not be read %d times", ErrDamaged, maxLooks)
}

// firstRead is how much of a record is read at first, in bytes: with most it is all.
const firstRead = 1 << 10

// read reads the record at a location: its head, or all of it.
func (v *Values) read(loc uint64, data bool) (Value, error) {
	s, off, err := v.place(loc)
	if err != nil {
		return Value{}, err
	}
	fail := func(err error) (Value, error) {
		return Value{}, fmt.Errorf("%s at offset %d: %w", s.path, off, err)
	}
	buf := make([]byte, min(firstRead, s.size-off))
	if _, err := s.file.ReadAt(buf, off); err != nil && err != io.EOF {
		return fail(err)
	}
	le := binary.LittleEndian
	if len(buf) < recordHeader || buf[4] != TypeValue {
		return fail(errValue)
	}
	body := int(le.Uint32(buf))
	if int64(body) > s.size-off-recordHeader {
		return fail(errValue)
	}
	p := buf[recordHeader:]
	if !data {
		val, _, err := v.log.codec.head(p[:min(body, len(p))])
		if err != nil {
			return fail(err)
		}
		return val, nil
	}
	if body > len(p) {
		whole := make([]byte, body)
		n := copy(whole, p)
		if _, err := s.file.ReadAt(whole[n:], off+recordHeader+int64(n)); err != nil {
			return fail(err)
		}
		p = whole
	}
	val, err := v.log.codec.decodeValue(p[:body])
	if err != nil {
		return fail(err)
	}
	return val, nil
}

func (v *Values) place(loc uint64) (*segment, int64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ordinal := int(loc >> v.offsetBits)
	if ordinal >= len(v.holders) || v.holders[ordinal] == nil {
		return nil, 0, os.ErrClosed
	}
	return v.holders[ordinal].seg, int64(loc&(1<<v.offsetBits-1)) * 8, nil
}

// Step is one change of the values that a batch made durable.
type Step struct {
	Hash uint64
	// At is where the new record stands, counted from its batch; -1: there is
	// none, the key is gone.
	At      int
	Size    int // of the new record
	Expires int64
	// Old is what the key had before, if OK. With After it is the record of an
	// earlier step of the batch, whose index After is, less one.
	Old   Found
	After int
	// Mark is the size of a mark that the batch holds too.
	Mark int

	loc uint64
}

// Put fills in a value record's body, of ValueSize bytes. sum is SumValue of data.
func (v *Values) Put(p []byte, acc, id, typ string, version uint64, expires int64, data []byte, sum uint32) {
	v.log.codec.putValue(p, acc, id, typ, version, expires, data, sum)
}

// Apply takes over what a durable batch changed; start is where it begins.
// Only the writer calls it, and recovery.
func (v *Values) Apply(start Pos, steps []Step) {
	if len(steps) == 0 {
		return
	}
	v.mu.Lock()
	here := v.holder(start.Segment)
	v.mu.Unlock()
	for i := range steps {
		s := &steps[i]
		old := s.Old.Loc
		if s.After > 0 {
			old = steps[s.After-1].loc
		}
		switch {
		case s.At < 0:
			if s.Old.OK {
				v.index.Delete(s.Hash, old)
			}
		case s.Old.OK:
			s.loc = v.location(here, start.Offset+int64(s.At))
			v.index.Move(s.Hash, old, s.loc)
		default:
			s.loc = v.location(here, start.Offset+int64(s.At))
			v.index.Insert(s.Hash, s.loc)
		}
		v.account(here, s, old)
	}
}

func (v *Values) location(h *holder, off int64) uint64 {
	return uint64(h.ordinal)<<v.offsetBits | uint64(off/8)
}

// account keeps the bytes of the segments up to date.
func (v *Values) account(here *holder, s *Step, old uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.Old.OK {
		if h := v.holders[old>>v.offsetBits]; h != nil {
			h.drop(int64(s.Old.Size), s.Old.Expires)
			v.live -= int64(s.Old.Size)
		}
	}
	if s.At >= 0 {
		here.keep(int64(s.Size), s.Expires)
		v.live += int64(s.Size)
		v.total += int64(s.Size)
	}
	here.total += int64(s.Mark)
	here.marks += int64(s.Mark)
	v.total += int64(s.Mark)
}

func (h *holder) keep(size, expires int64) {
	h.live += size
	h.total += size
	if expires != 0 {
		if h.ends == nil {
			h.ends = make(map[int64]int64)
		}
		h.ends[endOf(expires)] += size
	}
}

func (h *holder) drop(size, expires int64) {
	h.live -= size
	if expires == 0 {
		return
	}
	if h.ends[endOf(expires)] -= size; h.ends[endOf(expires)] <= 0 {
		delete(h.ends, endOf(expires))
	}
}

// holder returns the holder of a segment, made if it is the first value there.
// It wants v.mu held.
func (v *Values) holder(number uint64) *holder {
	if h := v.byNumber[number]; h != nil {
		return h
	}
	h := &holder{seg: v.log.segment(number)}
	most := 1 << (maxLocationBits - v.offsetBits)
	for range most {
		v.last = (v.last + 1) % most
		if v.last >= len(v.holders) {
			v.holders = append(v.holders, nil)
			v.last = len(v.holders) - 1
		}
		if v.holders[v.last] == nil {
			h.ordinal = v.last
			v.holders[h.ordinal] = h
			v.byNumber[number] = h
			return h
		}
	}
	panic(fmt.Sprintf("kvlog: values in more than %d segments", most))
}

// Replay takes over a record of type TypeValue or TypeMark, from the log. What
// came earlier in the log must have been replayed before.
func (v *Values) Replay(recs Records, rec Record) (version uint64, err error) {
	start := Pos{Segment: recs.Segment}
	step := Step{At: -1}
	if rec.Type == TypeMark {
		m, err := DecodeMark(rec.Body)
		if err != nil {
			return 0, err
		}
		acc, id := string(m.Acc), string(m.ID)
		step.Hash = v.Hash(acc, id)
		step.Mark = RecordSize(len(rec.Body))
		step.Old, err = v.Find(acc, id, step.Hash)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return 0, err
		}
		v.Apply(start, []Step{step})
		return 0, nil
	}
	val, _, err := v.log.codec.head(rec.Body)
	if err != nil {
		return 0, err
	}
	acc, id := string(val.Acc), string(val.ID)
	step.Hash = v.Hash(acc, id)
	step.At, step.Size, step.Expires = int(rec.Offset), RecordSize(len(rec.Body)), val.Expires
	step.Old, err = v.Find(acc, id, step.Hash)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return 0, err
	}
	v.Apply(start, []Step{step})
	return val.Version, nil
}

// Holds says whether a segment has values or marks that are needed.
func (v *Values) Holds(number uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.byNumber[number] != nil
}

// ValueStats are figures of the values.
type ValueStats struct {
	Keys       int    // in the index, those whose time is over included until they are swept
	Live       int64  // bytes of their records
	Total      int64  // bytes of all value records and marks in the log
	IndexBytes int64  // memory of the index
	Reads      uint64 // values read
	Damaged    uint64 // reads that met a damaged record
}

// Stats returns the figures of now.
func (v *Values) Stats() ValueStats {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return ValueStats{Keys: v.index.Len(), Live: v.live, Total: v.total, IndexBytes: v.index.Bytes(), Reads: v.reads.Load(), Damaged: v.damaged.Load()}
}
