package kvlog

import (
	"encoding/binary"
	"fmt"
)

// TypeTombstone is the type of the record that says that a key was deleted. It outlives
// every older value of its key in the log, so that a rebuilt index never brings one back.
// Part of the file format, never changed.
const TypeTombstone uint8 = 17

// tombstoneHead is what a tombstone's body has before its names, in bytes; part
// of the file format, never changed.
const tombstoneHead = 10

// Tombstone is one tombstone, in memory.
type Tombstone struct {
	Acc, ID []byte
	Origin  uint64 // the segment that it was first written in; 0: the one that it is in
}

// TombstoneSize returns the bytes of a tombstone's body.
func TombstoneSize(acc, id string) int { return tombstoneHead + len(acc) + len(id) }

// PutTombstone fills in a tombstone's body, of TombstoneSize bytes:
//
//	 0  origin   8  the segment that it was first written in; 0: this one
//	 8  lengths  2  bytes of account and id, 1 to 255 each
//	10  account, id
//
// It has no checksum; that of its batch covers it. origin is 0 for a new tombstone.
func PutTombstone(p []byte, acc, id string, origin uint64) {
	binary.LittleEndian.PutUint64(p, origin)
	p[8], p[9] = uint8(len(acc)), uint8(len(id))
	copy(p[tombstoneHead:], acc)
	copy(p[tombstoneHead+len(acc):], id)
}

// DecodeTombstone reads a tombstone's body. Its names alias p.
func DecodeTombstone(p []byte) (Tombstone, error) {
	if len(p) < tombstoneHead || len(p) != tombstoneHead+int(p[8])+int(p[9]) || p[8] == 0 || p[9] == 0 {
		return Tombstone{}, fmt.Errorf("a tombstone of %d bytes does not match its lengths of account and id", len(p))
	}
	acc := tombstoneHead + int(p[8])
	return Tombstone{Acc: p[tombstoneHead:acc], ID: p[acc:], Origin: binary.LittleEndian.Uint64(p)}, nil
}
