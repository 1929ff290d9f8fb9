// Package slots keeps small things of equal size in place: one table is one
// memory-mapped file of equal slots, and there is one table for each size class.
// It knows a slot's image, checksum and place; what a payload means belongs to
// the caller.
//
// A table file is a header page and then slots; it grows by whole extents.
//
//	slots-64:   [header 4096][slot 0: 64][slot 1: 64] …
//	slots-512:  [header 4096][slot 0: 512] …
//
// A slot never crosses a sector of 512 bytes, so that a disk writes it whole or
// not at all. The high-water mark of a table is the number of slots below which
// every slot has been used: each one there holds a good image, of a thing or of
// a slot that is free again, and anything else there is damage. From the mark on
// nothing counts.
//
// The images come from a log that is durable before they are applied here, and
// which is replayed from the last checkpoint after a crash. So a table need not
// be synced before a checkpoint, and whatever a crash leaves in a slot that was
// changed since is overruled by the replay.
package slots
