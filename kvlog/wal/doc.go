// Package wal is the write-ahead log: batches of records, appended and synced one
// batch at a time, in segment files that are filled with zeros ahead of need and
// never used a second time. The log does not know what a record means; package
// kvlog, above it, keeps keys' values in one.
//
// # The files
//
// Integers are little-endian, checksums are CRC-32C. All of this is part of the
// file format, never changed.
//
// A segment is a file NNNNNNNN.seg (its number in decimal, at least 8 digits).
// Its first page is the header; the rest is batches, each right behind the one
// before, and zeros where none was written yet:
//
//	 0  magic     8  "cdlogseg"
//	 8  version   4  1
//	12  checksum  4  of the whole page but for these 4 bytes
//	16  number    8  1, 2, 3…
//	24  size      8  bytes of the file, this page included; a multiple of 4096
//	32  ID       16  of the data directory
//	48  zeros, to 4096
//
// All that is not zero lies in one sector, so that a header is there or not.
//
// A batch is what one write and one sync make durable, whole or not at all:
//
//	 0  magic     4  cd 'L' 'O' 'G'
//	 4  sum       4  checksum of the directory's ID and bytes 8 to length
//	 8  head      4  checksum of the directory's ID and bytes 12 to 48
//	12  length    4  bytes of the batch, this header included; a multiple of 8
//	16  count     4  records, at least 1
//	20  prev      4  sum of the batch before; 0 in the very first
//	24  seq       8  1, 2, 3…, over all segments
//	32  segment   8  number of the segment it stands in
//	40  offset    8  and where in it
//	48  records
//
// The ID keeps a value that a client stores from posing as a batch, the place a
// batch from counting anywhere else, seq and prev one from following any other
// than the one it was written behind.
//
// A record:
//
//	0  length  4  bytes of the body
//	4  type    1  1 to 254 belong to the caller, 255 is the seal
//	5  zeros   3
//	8  body, padded with zeros to a multiple of 8
//
// The last batch of a segment is the seal: one record of type 255 whose body is
// the number of the segment in which the log goes on (8 bytes), which is always
// this one's plus one. Room for it is kept free at the end of each segment.
//
// # What recovery rests on
//
// A batch is written only after the one before it is durable, the seal only
// after the next segment is, and the next segment's first batch only after the
// seal is. So what a crash can leave is a good log and at most one batch behind
// it of which any part is there: a torn tail, to be cut. And the header of a
// later batch, even alone, proves that all batches before it were durable: if
// one of them is bad, that is damage, not a torn tail.
package wal
