package db

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"clouddragon/internal/lease"
)

// MoveRecord is one item of an account that is sent to another server. The times in it
// count from when it was read, since servers do not share a clock.
type MoveRecord struct {
	Kind    uint8 // as slots have it; 0: a value
	ID      string
	Sub     uint64 // of a lock: the token of the holder
	Payload []byte // of a slot, or the value's data

	// Of a value.
	Version        uint64
	Expires        int64 // ns from now; 0: never
	Type, Encoding string
}

// moveEnd is the kind of the record that ends a stream of records. Its Version is the number
// of records before it.
const moveEnd = 255

// A record on the wire:
//
//	 0  u32 length of what follows the checksum
//	 4  u32 CRC-32C of that
//	 8  u8  kind
//	 9  u64 sub
//	17  u64 version
//	25  i64 expires
//	33  id, type, encoding, payload, each after its length as u32
const (
	moveHead  = 8
	moveFixed = 25
	// maxMoveNames is the largest size of a record without its payload.
	maxMoveNames = moveFixed + 4*4 + MaxID + MaxType + MaxEncoding
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrMoveCut is returned when a stream of records ends before its last one.
var ErrMoveCut = errors.New("the stream of the account ends too early")

// AppendMoveRecord appends the record as it is sent.
func AppendMoveRecord(b []byte, r *MoveRecord) []byte {
	at := len(b)
	b = append(b, make([]byte, moveHead)...)
	b = append(b, r.Kind)
	b = le.AppendUint64(b, r.Sub)
	b = le.AppendUint64(b, r.Version)
	b = le.AppendUint64(b, uint64(r.Expires))
	for _, s := range []string{r.ID, r.Type, r.Encoding} {
		b = le.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	b = le.AppendUint32(b, uint32(len(r.Payload)))
	b = append(b, r.Payload...)
	body := b[at+moveHead:]
	le.PutUint32(b[at:], uint32(len(body)))
	le.PutUint32(b[at+4:], crc32.Checksum(body, castagnoli))
	return b
}

// AppendMoveEnd appends the record that ends a stream of n records.
func AppendMoveEnd(b []byte, n uint64) []byte {
	return AppendMoveRecord(b, &MoveRecord{Kind: moveEnd, Version: n})
}

// MoveReader reads a stream of records.
type MoveReader struct {
	r    *bufio.Reader
	most int64  // bytes that a payload may have
	n    uint64 // records so far
	Raw  []byte // the last record, as it was sent
}

// NewMoveReader returns a reader of records with payloads of at most most bytes.
func NewMoveReader(r io.Reader, most int64) *MoveReader {
	return &MoveReader{r: bufio.NewReaderSize(r, 64<<10), most: most}
}

// Next returns the next record, which is valid until the next call. If ended is set, the
// stream must end with the end record; otherwise it may end after any record. The error is
// io.EOF at the end, and ErrMoveCut if the stream ends too early.
func (m *MoveReader) Next(ended bool) (*MoveRecord, error) {
	var head [moveHead]byte
	switch _, err := io.ReadFull(m.r, head[:]); {
	case err == io.EOF && !ended:
		return nil, io.EOF
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return nil, ErrMoveCut
	case err != nil:
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:]))
	if size > m.most+maxMoveNames {
		return nil, fmt.Errorf("a value of about %d bytes is larger than %d bytes (limits.value): raise the limit for the move", size, m.most)
	}
	if int64(cap(m.Raw)) < moveHead+size {
		m.Raw = make([]byte, 0, moveHead+size)
	}
	m.Raw = append(m.Raw[:0], head[:]...)
	m.Raw = m.Raw[:moveHead+size]
	body := m.Raw[moveHead:]
	if _, err := io.ReadFull(m.r, body); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, ErrMoveCut
	} else if err != nil {
		return nil, err
	}
	if crc32.Checksum(body, castagnoli) != le.Uint32(head[4:]) {
		return nil, errors.New("a record of the account was changed on its way")
	}
	r, err := decodeMoveRecord(body)
	if err != nil {
		return nil, err
	}
	if r.Kind != moveEnd {
		m.n++
		return r, nil
	}
	if r.Version != m.n {
		return nil, fmt.Errorf("%d records of the account have arrived, but %d were sent", m.n, r.Version)
	}
	return nil, io.EOF
}

func decodeMoveRecord(b []byte) (*MoveRecord, error) {
	bad := errors.New("a record of the account is malformed")
	if len(b) < moveFixed {
		return nil, bad
	}
	r := &MoveRecord{Kind: b[0], Sub: le.Uint64(b[1:]), Version: le.Uint64(b[9:]), Expires: int64(le.Uint64(b[17:]))}
	b = b[moveFixed:]
	take := func() ([]byte, bool) {
		if len(b) < 4 || uint64(len(b)-4) < uint64(le.Uint32(b)) {
			return nil, false
		}
		n := int(le.Uint32(b))
		part := b[4:][:n]
		b = b[4+n:]
		return part, true
	}
	for _, to := range []*string{&r.ID, &r.Type, &r.Encoding} {
		part, ok := take()
		if !ok {
			return nil, bad
		}
		*to = string(part)
	}
	var ok bool
	if r.Payload, ok = take(); !ok || len(b) > 0 {
		return nil, bad
	}
	if r.Kind != moveEnd && r.check() != nil {
		return nil, bad
	}
	return r, nil
}

// check returns an error for a record that this version does not know.
func (r *MoveRecord) check() error {
	size := len(r.Payload)
	ok := len(r.ID) >= 1 && len(r.ID) <= MaxID
	switch r.Kind {
	case valueKind:
		ok = ok && r.Version > 0 && len(r.Type) <= MaxType && len(r.Encoding) <= MaxEncoding
	case kindSequence:
		ok = ok && size == numberSize
	case kindCounter:
		ok = ok && (size == counterSize || size == counterWithTime)
	case kindRate:
		ok = ok && size == rateSize
	case kindLock:
		ok = ok && size == holdSize && int(r.Payload[29]) <= MaxOwner && r.Sub != 0
	default:
		ok = false
	}
	if !ok {
		return errors.New("this version does not know the kind of the record")
	}
	return nil
}

// shift adds to the times in the payload of a slot. It returns false if the item has expired
// after that, at time 0.
func (r *MoveRecord) shift(by int64) bool {
	add := func(at int) int64 {
		t := int64(le.Uint64(r.Payload[at:])) + by
		le.PutUint64(r.Payload[at:], uint64(t))
		return t
	}
	switch {
	case r.Kind == kindCounter && len(r.Payload) == counterWithTime:
		return add(counterSize) > 0
	case r.Kind == kindRate:
		return add(0) > 0
	case r.Kind == kindLock:
		ends := add(0)
		add(8)
		if le.Uint64(r.Payload[16:]) != 0 {
			ends = max(ends, add(16))
		}
		return ends > 0
	}
	return true
}

// hold returns the holder in the record of a lock.
func (r *MoveRecord) hold() lease.Holder { return holdOf(r.Sub, r.Payload) }
