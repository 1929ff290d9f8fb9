package kvlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"clouddragon/internal/format"
)

// TypeValue is the type of the record that holds a key's value. Part of the file
// format, never changed.
const TypeValue uint8 = 16

// valueHead is what a value's body has before its names, in bytes; part of the
// file format, never changed.
const valueHead = 32

// codec encodes and checks what belongs to one data directory. The checksums of a
// value's head and of the index snapshot begin with the directory's ID, so that
// nothing from another directory passes for its own.
type codec struct {
	seed uint32 // the checksum of the ID
}

func newCodec(id [16]byte) codec {
	return codec{seed: crc32.Checksum(id[:], format.Castagnoli)}
}

// Value is one value record, in memory.
type Value struct {
	Acc, ID  []byte
	Type     []byte // Content-Type
	Encoding []byte // Content-Encoding
	Version  uint64
	Expires  int64  // in database time, ns; 0: never
	Length   int    // bytes of the data
	Sum      uint32 // checksum of the data
	Data     []byte // nil where only the head was read
}

// Expired reports whether the value has expired at now.
func (v *Value) Expired(now int64) bool { return v.Expires != 0 && v.Expires <= now }

// is reports whether the value belongs to the key.
func (v *Value) is(acc, id string) bool { return string(v.ID) == id && string(v.Acc) == acc }

// errValue is returned for a value record that fails its checksums.
var errValue = errors.New("the value's record is damaged")

// ValueSize returns the bytes of a value's body.
func ValueSize(acc, id, typ, encoding string, data int) int {
	return valueHead + len(acc) + len(id) + len(typ) + len(encoding) + data
}

// putValue fills in a value's body, of ValueSize bytes:
//
//	 0  head     4  crc32c of the directory's ID and bytes 4 to the value
//	 4  sum      4  crc32c of the value
//	 8  length   4  bytes of the value
//	12  lengths  4  bytes of account, id, Content-Type and Content-Encoding
//	16  version  8
//	24  expires  8  in database time, ns; 0: never
//	32  account, id, Content-Type, Content-Encoding, value
func (c codec) putValue(p []byte, acc, id, typ, encoding string, version uint64, expires int64, data []byte, sum uint32) {
	le := binary.LittleEndian
	le.PutUint32(p[4:], sum)
	le.PutUint32(p[8:], uint32(len(data)))
	p[12], p[13], p[14], p[15] = uint8(len(acc)), uint8(len(id)), uint8(len(typ)), uint8(len(encoding))
	le.PutUint64(p[16:], version)
	le.PutUint64(p[24:], uint64(expires))
	n := valueHead
	n += copy(p[n:], acc)
	n += copy(p[n:], id)
	n += copy(p[n:], typ)
	n += copy(p[n:], encoding)
	le.PutUint32(p, crc32.Update(c.seed, format.Castagnoli, p[4:n]))
	copy(p[n:], data)
}

// SumValue returns the checksum of a value's data, its CRC-32C.
func SumValue(data []byte) uint32 { return crc32.Checksum(data, format.Castagnoli) }

// head decodes the head of a value's body from p, a prefix of the body. end is where the
// data begins. If p is too short, err is set and end is how many bytes p must have.
func (c codec) head(p []byte) (v Value, end int, err error) {
	if len(p) < valueHead {
		return Value{}, valueHead, errValue
	}
	le := binary.LittleEndian
	acc, id, typ, encoding := int(p[12]), int(p[13]), int(p[14]), int(p[15])
	end = valueHead + acc + id + typ + encoding
	if len(p) < end {
		return Value{}, end, errValue
	}
	if got, want := crc32.Update(c.seed, format.Castagnoli, p[4:end]), le.Uint32(p); got != want {
		return Value{}, 0, fmt.Errorf("%w: its head has checksum %08x, its bytes have %08x", errValue, want, got)
	}
	names := p[valueHead:end]
	return Value{
		Acc: names[:acc], ID: names[acc : acc+id], Type: names[acc+id:][:typ], Encoding: names[acc+id+typ:],
		Version: le.Uint64(p[16:]),
		Expires: int64(le.Uint64(p[24:])),
		Length:  int(le.Uint32(p[8:])),
		Sum:     le.Uint32(p[4:]),
	}, end, nil
}

// decodeValue decodes a whole body and checks the data too. The result aliases p.
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
