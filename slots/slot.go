package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"

	"clouddragon/internal/format"
)

// Classes are the slot sizes in bytes; part of the file format, never changed.
var Classes = [4]int{64, 128, 256, 512}

// The parts of a slot, in bytes; part of the file format, never changed.
const (
	slotHead   = 8   // what precedes the payload
	subSize    = 8   // of Key.Sub, where there is one
	hasSub     = 128 // the bit of the kind that is set if there is one
	MaxAcc     = 64  // longest account name
	MaxID      = 255 // longest id
	MaxPayload = 255 // longest payload

	freeKind = 0 // the kind of a used slot that is free again
)

// Ref names a slot: the index of its class in the top two bits, its number in
// the table below. It is part of the file format, never changed.
type Ref uint64

const numberBits = 62

// MakeRef returns the Ref of slot n of the class with that index in Classes.
func MakeRef(class int, n uint64) Ref { return Ref(uint64(class)<<numberBits | n) }

// Class returns the index in Classes, 0 to 3.
func (r Ref) Class() int { return int(r >> numberBits) }

// Size returns the slot's size in bytes.
func (r Ref) Size() int { return Classes[r.Class()] }

// Number returns the slot's number in its table, from 0.
func (r Ref) Number() uint64 { return uint64(r) & (1<<numberBits - 1) }

// offset returns where the slot starts in its file.
func (r Ref) offset() int64 { return headerSize + int64(r.Number())*int64(r.Size()) }

// Key identifies the item in a slot: its kind (1 to 127, numbers of the caller's), its
// account, its id and, if an item has several slots, which of them.
type Key struct {
	Kind    uint8
	Acc, ID string
	Sub     uint64 // 0: the item has one slot
}

// seed differs from process to process, so no client can choose names that collide.
var seed = maphash.MakeSeed()

// hashMask selects the bits of a hash that are used; a test makes keys collide with it.
var hashMask = ^uint64(0)

// Hash returns the key's hash, which is valid only within this process.
func (k Key) Hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteByte(k.Kind)
	h.WriteByte(uint8(len(k.Acc)))
	h.WriteString(k.Acc)
	h.WriteString(k.ID)
	if k.Sub != 0 {
		hashSub(&h, k.Sub)
	}
	return h.Sum64() & hashMask
}

// Slot is the decoded content of a slot. Its slices alias the image.
type Slot struct {
	Free             bool // the slot was used and is free again; the other fields are empty
	Kind             uint8
	Acc, ID, Payload []byte
	Sub              uint64
}

// Key returns the slot's key.
func (s *Slot) Key() Key { return Key{s.Kind, string(s.Acc), string(s.ID), s.Sub} }

func hashSub(h *maphash.Hash, sub uint64) {
	var b [subSize]byte
	binary.LittleEndian.PutUint64(b[:], sub)
	h.Write(b[:])
}

// hash returns the hash of the slot's key, as Key.Hash does.
func (s *Slot) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteByte(s.Kind)
	h.WriteByte(uint8(len(s.Acc)))
	h.Write(s.Acc)
	h.Write(s.ID)
	if s.Sub != 0 {
		hashSub(&h, s.Sub)
	}
	return h.Sum64() & hashMask
}

func (s *Slot) is(k Key) bool {
	return s.Kind == k.Kind && s.Sub == k.Sub && string(s.ID) == k.ID && string(s.Acc) == k.Acc
}

// sameKey reports whether two images of used slots have the same key.
func sameKey(a, b []byte) bool {
	if a[4] != b[4] || a[5] != b[5] || a[6] != b[6] {
		return false
	}
	x, end := split(a)
	y, _ := split(b)
	if a[7] == b[7] { // then both have everything at the same offsets
		return bytes.Equal(a[slotHead+int(a[7]):end], b[slotHead+int(b[7]):end])
	}
	return x.Sub == y.Sub && bytes.Equal(x.ID, y.ID) && bytes.Equal(x.Acc, y.Acc)
}

// ClassFor returns the index of the smallest class whose slots can hold the key with a
// payload of that many bytes. It returns false if there is none, or if the key breaks a
// slot's limits.
func ClassFor(k Key, payload int) (class int, ok bool) {
	if checkSlot(k.kind(), len(k.Acc), len(k.ID), payload, Classes[len(Classes)-1]) != nil {
		return 0, false
	}
	size := slotHead + payload + subBytes(k.kind()) + len(k.Acc) + len(k.ID)
	for Classes[class] < size {
		class++
	}
	return class, true
}

// kind returns the kind as stored in a slot.
func (k *Key) kind() uint8 {
	if k.Sub != 0 {
		return k.Kind | hasSub
	}
	return k.Kind
}

// subBytes returns how many bytes Key.Sub takes in a slot of that kind.
func subBytes(kind uint8) int {
	if kind&hasSub != 0 {
		return subSize
	}
	return 0
}

// checkSlot checks a used slot's limits. It is the only check, for writing and for
// reading.
func checkSlot(kind uint8, acc, id, payload, size int) error {
	switch {
	case kind&^hasSub == freeKind:
		return fmt.Errorf("kind is %d, wanted 1 to 127", kind&^hasSub)
	case acc < 1 || acc > MaxAcc:
		return fmt.Errorf("account is %d bytes long, wanted 1 to %d", acc, MaxAcc)
	case id < 1 || id > MaxID:
		return fmt.Errorf("id is %d bytes long, wanted 1 to %d", id, MaxID)
	case payload < 0 || payload > MaxPayload:
		return fmt.Errorf("payload is %d bytes long, wanted 0 to %d", payload, MaxPayload)
	case slotHead+payload+subBytes(kind)+acc+id > size:
		return fmt.Errorf("contents take %d bytes, the slot has %d", slotHead+payload+subBytes(kind)+acc+id, size)
	}
	return nil
}

// Codec writes and reads the slot images of one data directory.
//
// An image is as long as its slot. All numbers are little-endian.
//
//	offset size
//	 0      4   checksum: crc32c over the directory's ID, the Ref (8 bytes), and
//	            the rest of the image
//	 4      1   kind, 1 to 127, and 128 more if there is a Sub; 0: the slot was
//	            used and is free again
//	 5      1   length of the account, 1 to 64 (free: 0)
//	 6      1   length of the id, 1 to 255 (free: 0)
//	 7      1   length of the payload, 0 to 255 (free: 0)
//	 8          payload, Sub (8 bytes, if there is one), account, id, and zeros to the end
//
// The ID and the Ref are in the checksum but not in the image, so a slot of another
// directory or from another place fails its checksum.
type Codec struct {
	ID [16]byte // the data directory's
}

// Encode writes the image of a used slot to dst, which is r.Size() bytes long. It panics
// if the key and the payload do not fit the slot; see ClassFor.
func (c Codec) Encode(dst []byte, r Ref, k Key, payload []byte) {
	if err := checkSlot(k.kind(), len(k.Acc), len(k.ID), len(payload), r.Size()); err != nil {
		panic("slots: encode: " + err.Error())
	}
	dst = dst[:r.Size()]
	dst[4], dst[5], dst[6], dst[7] = k.kind(), uint8(len(k.Acc)), uint8(len(k.ID)), uint8(len(payload))
	n := slotHead
	n += copy(dst[n:], payload)
	if k.Sub != 0 {
		binary.LittleEndian.PutUint64(dst[n:], k.Sub)
		n += subSize
	}
	n += copy(dst[n:], k.Acc)
	n += copy(dst[n:], k.ID)
	clear(dst[n:])
	binary.LittleEndian.PutUint32(dst, c.sum(r, dst))
}

// EncodeFree writes to dst, which is r.Size() bytes long, the image of a slot
// that was used and is free again.
func (c Codec) EncodeFree(dst []byte, r Ref) {
	dst = dst[:r.Size()]
	clear(dst)
	binary.LittleEndian.PutUint32(dst, c.sum(r, dst))
}

// Decode reads an image. It returns an error if the image is not r.Size() bytes
// long, its checksum does not match, or it breaks the format's limits.
func (c Codec) Decode(r Ref, image []byte) (Slot, error) {
	if len(image) != r.Size() {
		return Slot{}, fmt.Errorf("the image is %d bytes long, wanted %d", len(image), r.Size())
	}
	if got, want := binary.LittleEndian.Uint32(image), c.sum(r, image); got != want {
		if isZero(image) {
			return Slot{}, errors.New("the slot is all zeros, though it was used")
		}
		return Slot{}, fmt.Errorf("the checksum is %08x, wanted %08x", got, want)
	}
	if image[4] == freeKind {
		if !isZero(image[4:]) {
			return Slot{}, errors.New("the slot is free, but not empty")
		}
		return Slot{Free: true}, nil
	}
	if err := checkSlot(image[4], int(image[5]), int(image[6]), int(image[7]), len(image)); err != nil {
		return Slot{}, err
	}
	s, end := split(image)
	if image[4]&hasSub != 0 && s.Sub == 0 {
		return Slot{}, errors.New("the slot has a Sub of 0, which is not written")
	}
	if !isZero(image[end:]) {
		return Slot{}, fmt.Errorf("the contents end at %d, but what follows is not zero", end)
	}
	return s, nil
}

// split decodes the image of a used slot that is known to be good. It also returns where
// the contents end.
func split(image []byte) (Slot, int) {
	payload := slotHead + int(image[7])
	acc := payload + subBytes(image[4])
	id := acc + int(image[5])
	end := id + int(image[6])
	s := Slot{
		Kind:    image[4] &^ hasSub,
		Payload: image[slotHead:payload:payload],
		Acc:     image[acc:id:id],
		ID:      image[id:end:end],
	}
	if acc > payload {
		s.Sub = binary.LittleEndian.Uint64(image[payload:])
	}
	return s, end
}

// sum returns the checksum of an image at r.
func (c Codec) sum(r Ref, image []byte) uint32 {
	crc := extend(0, binary.LittleEndian.Uint64(c.ID[:8]))
	crc = extend(crc, binary.LittleEndian.Uint64(c.ID[8:]))
	crc = extend(crc, uint64(r))
	return crc32.Update(crc, format.Castagnoli, image[4:])
}

// extend is crc32.Update over v in little-endian order. A buffer on the stack would
// escape to the heap if it was passed to crc32.Update.
func extend(crc uint32, v uint64) uint32 {
	crc = ^crc
	for range 8 {
		crc = format.Castagnoli[uint8(crc)^uint8(v)] ^ crc>>8
		v >>= 8
	}
	return ^crc
}

var zeros [headerSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// A location in the index is a Ref with a shorter number: the class is right above its bits.
const locationNumberBits = 38

func location(r Ref) uint64 {
	return uint64(r.Class())<<locationNumberBits | r.Number()
}

func refAt(location uint64) Ref {
	return MakeRef(int(location>>locationNumberBits), location&(1<<locationNumberBits-1))
}
