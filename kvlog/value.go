package kvlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Types of the records that hold values; part of the file format, never changed.
const (
	// TypeValue is a key's value.
	TypeValue uint8 = 16
	// TypeMark says that a key has no value any more. It outlives every older
	// value of the key, so that an index built anew never brings one back.
	TypeMark uint8 = 17
)

// The body of a value record:
//
//	 0  head     4  crc32c of the directory's ID and bytes 4 to the value
//	 4  sum      4  crc32c of the value
//	 8  length   4  bytes of the value
//	12  lengths  3  bytes of account, id and Content-Type
//	15  zero     1
//	16  version  8
//	24  expires  8  in database time, ns; 0: never
//	32  account, id, Content-Type, value
//
// The body of a mark, which is covered by the checksum of its batch:
//
//	 0  origin   8  the segment that it was first written in; 0: this one
//	 8  lengths  2  bytes of account and id
//	10  account, id
const (
	valueHead = 32 // part of the file format, never changed
	markHead  = 10 // part of the file format, never changed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// codec writes and checks the records of values of one data directory.
type codec struct {
	seed uint32 // the checksum of the directory's ID, with which every other starts
}

func newCodec(id [16]byte) codec {
	return codec{seed: crc32.Checksum(id[:], castagnoli)}
}

// Value is one value record, in memory.
type Value struct {
	Acc, ID, Type []byte
	Version       uint64
	Expires       int64 // in database time, ns; 0: never
	Length        int   // bytes of Data
	Sum           uint32
	Data          []byte // nil where only the head was read
}

// Over says whether the value's time is over at now.
func (v *Value) Over(now int64) bool { return v.Expires != 0 && v.Expires <= now }

// is says whether the value belongs to the key.
func (v *Value) is(acc, id string) bool { return string(v.ID) == id && string(v.Acc) == acc }

// errValue is returned for a value record that does not check.
var errValue = errors.New("the value's record is damaged")

// ValueSize returns the length of a value record's body.
func ValueSize(acc, id, typ string, data int) int {
	return valueHead + len(acc) + len(id) + len(typ) + data
}

// putValue fills in a value record's body, see Values.Put.
func (c codec) putValue(p []byte, acc, id, typ string, version uint64, expires int64, data []byte, sum uint32) {
	le := binary.LittleEndian
	le.PutUint32(p[4:], sum)
	le.PutUint32(p[8:], uint32(len(data)))
	p[12], p[13], p[14], p[15] = uint8(len(acc)), uint8(len(id)), uint8(len(typ)), 0
	le.PutUint64(p[16:], version)
	le.PutUint64(p[24:], uint64(expires))
	n := valueHead
	n += copy(p[n:], acc)
	n += copy(p[n:], id)
	n += copy(p[n:], typ)
	le.PutUint32(p, crc32.Update(c.seed, castagnoli, p[4:n]))
	copy(p[n:], data)
}

// SumValue is the checksum of a value's data.
func SumValue(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// head reads the head of a value record from p, which may end behind it. need is
// how many bytes p must have, if it has too few.
func (c codec) head(p []byte) (v Value, need int, err error) {
	if len(p) < valueHead {
		return Value{}, valueHead, errValue
	}
	le := binary.LittleEndian
	acc, id, typ := int(p[12]), int(p[13]), int(p[14])
	end := valueHead + acc + id + typ
	if len(p) < end {
		return Value{}, end, errValue
	}
	if got, want := crc32.Update(c.seed, castagnoli, p[4:end]), le.Uint32(p); got != want {
		return Value{}, 0, fmt.Errorf("%w: its head has checksum %08x, its bytes have %08x", errValue, want, got)
	}
	names := p[valueHead:end]
	return Value{
		Acc: names[:acc], ID: names[acc : acc+id], Type: names[acc+id:],
		Version: le.Uint64(p[16:]),
		Expires: int64(le.Uint64(p[24:])),
		Length:  int(le.Uint32(p[8:])),
		Sum:     le.Uint32(p[4:]),
	}, end, nil
}

// decodeValue reads a whole body.
func (c codec) decodeValue(p []byte) (Value, error) {
	v, end, err := c.head(p)
	if err != nil {
		return Value{}, err
	}
	if len(p)-end != v.Length {
		return Value{}, fmt.Errorf("%w: it has %d bytes of data, its head says %d", errValue, len(p)-end, v.Length)
	}
	v.Data = p[end:]
	if got := SumValue(v.Data); got != v.Sum {
		return Value{}, fmt.Errorf("%w: its data has checksum %08x, want %08x", errValue, got, v.Sum)
	}
	return v, nil
}

// MarkSize returns the length of a mark's body.
func MarkSize(acc, id string) int { return markHead + len(acc) + len(id) }

// PutMark fills in a mark's body, of MarkSize bytes. origin is the segment in
// which it was first written; 0 for a new one.
func PutMark(p []byte, acc, id string, origin uint64) {
	binary.LittleEndian.PutUint64(p, origin)
	p[8], p[9] = uint8(len(acc)), uint8(len(id))
	copy(p[markHead:], acc)
	copy(p[markHead+len(acc):], id)
}

// Mark is one mark, in memory.
type Mark struct {
	Acc, ID []byte
	Origin  uint64
}

// DecodeMark reads a mark's body.
func DecodeMark(p []byte) (Mark, error) {
	if len(p) < markHead || len(p) != markHead+int(p[8])+int(p[9]) || p[8] == 0 || p[9] == 0 {
		return Mark{}, fmt.Errorf("a mark of %d bytes that does not say what it marks", len(p))
	}
	acc := markHead + int(p[8])
	return Mark{Acc: p[markHead:acc], ID: p[acc:], Origin: binary.LittleEndian.Uint64(p)}, nil
}
