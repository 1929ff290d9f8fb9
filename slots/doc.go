// Package slots stores small items in place. A table is one memory-mapped file of
// slots of equal size, and there is one table for each size class. The package knows a
// slot's image, checksum and place; what a payload means is up to the caller.
//
// A table file is a header page and then slots; it grows by whole extents.
//
//	slots-64:   [header 4096][slot 0: 64][slot 1: 64] …
//	slots-512:  [header 4096][slot 0: 512] …
//
// A slot never crosses the boundary of a 512-byte sector, so a disk writes it whole or
// not at all. Every slot below a table's high-water mark has been used: it holds a good
// image, of an item or of a slot that is free again, and anything else there is damage.
// The contents at and above the mark are ignored.
//
// The images come from a log that is durable before they are applied here, and that is
// replayed from the last checkpoint after a crash. So a table is synced only for a
// checkpoint. Whatever a crash leaves in a slot that was changed since, the replay
// overwrites.
package slots
