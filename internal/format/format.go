// Package format holds what all files of a data directory have in common.
package format

import "hash/crc32"

// Castagnoli is the table of every checksum in a file; part of the file format,
// never changed.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)
